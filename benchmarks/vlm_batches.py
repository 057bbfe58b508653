"""Tokens a second with buckets and with packing, against random batches; the padding of LLaVA's grouping beside them.

    python benchmarks/vlm_batches.py [--manifest out/mix] [--width 256] [--layers 24] [--per-image 49] [--device cpu]

Forward and backward over evenly spaced micro-batches of one epoch's plan, features given, logits where supervised; the
body has Qwen2-0.5B's 24 layers at a smaller width, and its vocabulary. 49 tokens a picture are those of Swin-T,
ConvNeXt-T and MobileViT-S. Without a manifest (of `vlm validate`) lengths are drawn in mix665k's composition, see
`vlm_models.PARTS`. The limit is the padding: positions over tokens, of the whole epoch.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from clock import seconds
from figures import Figure, show
from kd_vlm.assembly import Vlm
from kd_vlm.batch import Batch, collate, collate_packed, loss_sum, supervised_logits
from kd_vlm.packed_attention import BY_SAMPLE, language_attention
from kd_vlm.sampling import Plan, Sampler, epoch_plan, padding_share
from vlm_models import PAD_ID, Drawn, lengths_of, mix, sample, small_vlm

SAMPLERS: tuple[Sampler, ...] = ("random", "llava", "buckets", "packing")
TIMED = ("random", "buckets", "packing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--longest", type=int, default=1024, help="texts are cut to so many tokens")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--per-image", type=int, default=49)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    drawn = lengths_of(args.manifest) if args.manifest else mix(args.samples, longest=args.longest)
    lengths = drawn.lengths(args.per_image)
    vlm = small_vlm(args.width, args.layers, edge=round(args.per_image**0.5) * 16)
    vlm.model.to(args.device)
    print(
        f"load average {os.getloadavg()[0]:.1f}; {len(lengths)} samples, lengths {np.mean(lengths):.0f} +- "
        f"{np.std(lengths):.0f}, longest {max(lengths)}, supervised {drawn.supervised.sum() / sum(lengths):.0%}, "
        f"text only {1 - drawn.has_image.mean():.0%}"
    )
    plans = {
        sampler: epoch_plan(sampler, lengths, args.batch, seed=0, epoch=0, has_image=drawn.has_image.tolist())
        for sampler in SAMPLERS
    }
    rates = measured(vlm, {sampler: plans[sampler] for sampler in TIMED}, drawn, args)
    for sampler, plan in plans.items():
        waste = 0.0 if sampler == "packing" else padding_share(plan, lengths)
        rate = f"{rates[sampler]:9.0f} tokens/s" if sampler in rates else " " * 18
        print(f"{sampler:8} {rate}, {waste:.1%} of the positions are padding")
    limit = 1 / (1 - padding_share(plans["random"], lengths))
    show(
        *(
            Figure(
                f"tokens/s, {sampler} against random batches of {args.batch}",
                rates[sampler] / rates["random"],
                at_least=1.7,
                limit=limit,
                limit_of="positions over tokens; attention, which grows with the square, comes on top",
                seen=f"{rates[sampler]:.0f} against {rates['random']:.0f} tokens/s",
            )
            for sampler in TIMED[1:]
        )
    )


def measured(vlm: Vlm, plans: dict[str, Plan], drawn: Drawn, args: argparse.Namespace) -> dict[str, float]:
    """Tokens a second of each sampler; their batches in turn."""
    tokens, time = dict.fromkeys(plans, 0), dict.fromkeys(plans, 0.0)
    rng = np.random.default_rng(0)
    for k in range(-1, args.batches):  # the first round warms up
        for sampler, plan in plans.items():
            members = plan[round((max(k, 0) + 0.5) * len(plan) / args.batches)]
            encoded = [
                sample(int(drawn.text[i]), int(drawn.supervised[i]), int(drawn.n_images[i]), args.per_image, rng)
                for i in (members[:2] if k < 0 else members)
            ]
            batch = (collate_packed if sampler == "packing" else collate)(encoded, PAD_ID).to(args.device)
            features = torch.randn(batch.n_images, args.per_image, 192, device=args.device)
            name = BY_SAMPLE if sampler == "packing" else "sdpa"
            with language_attention(vlm.model, name):
                spent = seconds(lambda b=batch, f=features: step(vlm, b, f), args.device)
            if k >= 0:
                tokens[sampler] += batch.n_tokens
                time[sampler] += spent
    return {sampler: tokens[sampler] / time[sampler] for sampler in plans}


def step(vlm: Vlm, batch: Batch, features: torch.Tensor) -> None:
    vlm.model.zero_grad(set_to_none=True)
    logits, targets = supervised_logits(vlm, batch, features=features)
    (loss_sum(logits, targets) / len(targets)).backward()


if __name__ == "__main__":
    main()
