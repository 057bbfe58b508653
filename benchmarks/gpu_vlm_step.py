"""A finetuning step of a VLM with a Qwen2-0.5B: tokens/s and MFU, in length buckets and packed.

    python benchmarks/gpu_vlm_step.py [--samples 64] [--rows 16] [--device cuda]

Forward, logits where supervised, backward and AdamW over the samples of one optimiser step in micro-batches of a plan;
the tower's tokens are given, as from the cache. Lengths are drawn in mix665k's composition (`vlm_models.PARTS`). The
language model has Qwen2-0.5B's shape with random weights, in bf16 under autocast as the trainer runs it. MFU counts 6
operations a weight and token of the language model's blocks (kd_vlm's own `train/mfu`: attention's quadratic part and
the head are left out, and padding is no work); beside it stand all operations that the step did, padding included.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from clock import seconds
from figures import Figure, show
from gpu import achieved, device_peak, fastest_product, forget_peak
from kd_vlm.assembly import Vlm
from kd_vlm.batch import Batch, collate, collate_packed, loss_sum, supervised_logits
from kd_vlm.packed_attention import BY_SAMPLE, language_attention
from kd_vlm.sampling import epoch_plan
from kd_vlm.watching import cast, flops_per_token
from torch.utils.flop_counter import FlopCounterMode
from vlm_models import PAD_ID, mix, sample, small_vlm


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64, help="of an optimiser step")
    parser.add_argument("--rows", type=int, default=16, help="samples of a micro-batch")
    parser.add_argument("--longest", type=int, default=2048, help="texts are cut to so many tokens")
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--per-image", type=int, default=196)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--product", type=int, default=8192, help="side of the matrices of the large product")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args(arguments)
    product = fastest_product(args.device, args.precision, args.product)
    print(f"a product of {args.product} x {args.product} in {args.precision}: {product:.3g} TFLOP/s")
    vlm = small_vlm(args.width, args.layers, edge=round(args.per_image**0.5) * 16)
    vlm.model.to(args.device)
    found: list[Figure] = []
    for sampler, attention in (("buckets", "sdpa"), ("packing", BY_SAMPLE)):
        batches = micro_batches(sampler, args)
        with language_attention(vlm.model, attention):
            found += measured(sampler, vlm, batches, product, args)
    show(*found)


def micro_batches(sampler: str, args: argparse.Namespace) -> list[Batch]:
    """The first optimiser step of an epoch in this order."""
    drawn, rng = mix(args.samples, longest=args.longest), np.random.default_rng(0)
    lengths = drawn.lengths(args.per_image)
    plan = epoch_plan(sampler, lengths, args.rows, seed=0, epoch=0, has_image=drawn.has_image.tolist())  # type: ignore[arg-type]
    put = collate_packed if sampler == "packing" else collate
    numbers = zip(drawn.text.tolist(), drawn.supervised.tolist(), drawn.n_images.tolist(), strict=True)
    encoded = [sample(text, supervised, images, args.per_image, rng) for text, supervised, images in numbers]
    return [put([encoded[i] for i in members], PAD_ID).to(args.device) for members in plan]


def step_of(vlm: Vlm, batches: list[Batch], args: argparse.Namespace) -> Callable[[], None]:
    """One optimiser step."""
    device = torch.device(args.device)
    optimizer = torch.optim.AdamW([p for p in vlm.model.parameters() if p.requires_grad], lr=0.0, fused=True)
    tokens = [torch.randn(b.n_images, args.per_image, 192, device=device) for b in batches]

    def step() -> None:
        for batch, features in zip(batches, tokens, strict=True):
            with cast(args.precision, device):
                logits, targets = supervised_logits(vlm, batch, features=features)
            (loss_sum(logits, targets) / len(targets) / len(batches)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measured(sampler: str, vlm: Vlm, batches: list[Batch], product: float, args: argparse.Namespace) -> list[Figure]:
    """Tokens a second, MFU and achieved TFLOP/s."""
    forget_peak(args.device)
    step = step_of(vlm, batches, args)
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    spent = min(seconds(step, args.device) for _ in range(args.repeats))
    n = sum(batch.n_tokens for batch in batches)
    work, peak = flops_per_token(vlm.model, trained=True) * n, device_peak(args.device, args.precision) or product
    what, done = f"finetuning step, {sampler}, {args.layers} layers of {args.width}", counter.get_total_flops()
    return [
        Figure(f"{what}: tokens", n / spent, "tokens/s", seen=f"{n} tokens in {spent:.3g} s"),
        Figure(f"{what}: MFU", 100 * work / spent / 1e12 / peak, "%", limit=100, limit_of=f"{peak:.3g} TFLOP/s"),
        achieved(f"{what}: all operations", done, spent, args, product, f"{len(batches)} micro-batches"),
    ]


if __name__ == "__main__":
    main()
