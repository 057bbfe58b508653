"""A finetuning step end to end against a plain LLaVA-style loop: seconds, and the same loss.

    python benchmarks/vlm_end_to_end.py [--samples 16] [--batch 2] [--width 128] [--layers 8] [--device cpu]

The plain loop groups by LLaVA's sampler, pads to the longest, runs the tower (ViT-T/16 at 224 pixels) on pixels, takes
all logits and the stock loss. Ours packs rows, reads the tower's tokens, takes logits where supervised. Both do
optimiser steps of the same samples, accumulated over micro-batches and averaged over supervised tokens, so that the
losses must agree; the second step's loss also says that the first update was the same. Lengths: mix665k's composition,
see `vlm_models.PARTS`, texts cut at `--longest`. Not counted for either side: decoding pictures.
"""

import argparse
import copy
import os
from collections.abc import Callable

import numpy as np
import torch
from clock import seconds
from figures import Figure, show
from kd_vlm.assembly import Vlm
from kd_vlm.batch import collate, collate_packed, loss_sum, normalised, supervised_logits
from kd_vlm.packed_attention import BY_SAMPLE, language_attention
from kd_vlm.sampling import Plan, epoch_plan, padding_share
from kd_vlm.templates import Encoded
from torch import Tensor
from vlm_models import PAD_ID, VOCABULARY, body_parameters, mix, sample, small_vlm

STEPS, LR, WEIGHT_DECAY = 2, 1e-3, 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16, help="of an optimiser step")
    parser.add_argument("--batch", type=int, default=2, help="samples of a plain micro-batch")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--longest", type=int, default=400)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    plain, ours = small_vlm(args.width, args.layers), small_vlm(args.width, args.layers)
    ours.model.load_state_dict(copy.deepcopy(plain.model.state_dict()))
    data, pixels = samples(args.samples, args.longest, plain.tokens_per_image)
    pixels = pixels.to(args.device)
    for vlm in (plain, ours):
        vlm.model.to(args.device)
    lengths = [len(e.ids) for e in data]
    options = {"seed": 0, "epoch": 0, "has_image": [e.n_images > 0 for e in data]}
    grouped = epoch_plan("llava", lengths, args.batch, **options)
    packed = epoch_plan("packing", lengths, args.batch, **options)
    print(
        f"load average {os.getloadavg()[0]:.1f}; {len(data)} samples of {np.mean(lengths):.0f} tokens a step, "
        f"{padding_share(grouped, lengths):.0%} padding with LLaVA's sampler"
    )
    features = torch.empty(len(data), plain.tokens_per_image, 192, device=args.device)
    building = seconds(lambda: features.copy_(tower(ours, pixels)), args.device)
    runs = {
        "plain": loop(plain, grouped, lambda members: plain_loss(plain, data, pixels, members), data),
        "ours": loop(ours, packed, lambda members: our_loss(ours, data, features, members), data),
    }
    losses: dict[str, list[float]] = {side: [] for side in runs}
    least = dict.fromkeys(runs, float("inf"))
    with language_attention(ours.model, BY_SAMPLE):
        for _ in range(STEPS):
            for side, run in runs.items():
                least[side] = min(least[side], seconds(lambda s=side, r=run: losses[s].append(r()), args.device))
    for side in runs:
        print(f"{side:6} {least[side]:7.3f} s a step, losses {', '.join(f'{loss:.5f}' for loss in losses[side])}")
    apart = max(abs(a - b) for a, b in zip(*losses.values(), strict=True))
    print(f"largest difference of a loss {apart:.1e}; the tower's tokens cost {building:.3f} s once")
    if apart > 1e-3:
        raise SystemExit("The two loops do not train the same thing.")
    body, head = body_parameters(plain), args.width * VOCABULARY
    tokens, supervised = sum(lengths), sum(e.n_supervised for e in data)
    positions = tokens / (1 - padding_share(grouped, lengths))
    limit = positions * (body + head) / (tokens * body + supervised * head)
    once = least["plain"] / (least["ours"] + building)
    print(f"if every step also filled the cache {once:.2f}x")
    show(
        Figure(
            "a finetuning step against a plain LLaVA-style loop",
            least["plain"] / least["ours"],
            at_least=2.5,
            limit=limit,
            limit_of="products of the language model; the tower apart",
            seen=f"{least['plain']:.1f} s against {least['ours']:.1f} s",
        ),
        Figure("largest difference of a loss, over two steps", apart, "", at_most=1e-3),
    )


def samples(n: int, longest: int, tokens_per_image: int) -> tuple[list[Encoded], Tensor]:
    """Conversations, and the pixels of as many pictures (those of text-only samples are not used)."""
    drawn, rng = mix(n, longest=longest), np.random.default_rng(1)
    rows = zip(drawn.text.tolist(), drawn.supervised.tolist(), drawn.n_images.tolist(), strict=True)
    data = [sample(text, supervised, image, tokens_per_image, rng) for text, supervised, image in rows]
    return data, torch.randn(n, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def tower(vlm: Vlm, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return vlm.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]


def loop(vlm: Vlm, plan: Plan, loss_of: Callable[[list[int]], Tensor], data: list[Encoded]) -> Callable[[], float]:
    """One optimiser step over all micro-batches of `plan`; gives its loss."""
    trained = [p for p in vlm.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    n_supervised = sum(e.n_supervised for e in data)

    def step() -> float:
        total = 0.0
        for members in plan:
            loss = normalised(loss_of(members), 0, "global_tokens", step_count=n_supervised)
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def plain_loss(vlm: Vlm, data: list[Encoded], pixels: Tensor, members: list[int]) -> Tensor:
    """The summed loss as LLaVA's trainer computes it: padded, all logits, the tower online."""
    batch = collate([data[i] for i in members], PAD_ID).to(pixels.device)
    with_picture = [i for i in members if data[i].n_images]
    images = {"pixel_values": pixels[with_picture]} if with_picture else {}
    mask = (batch.ids != PAD_ID).long()
    options = {"attention_mask": mask, "labels": batch.labels, "use_cache": False}
    output = vlm.model(input_ids=batch.ids, **options, **images)
    return output.loss * int(batch.supervised.sum())


def our_loss(vlm: Vlm, data: list[Encoded], features: Tensor, members: list[int]) -> Tensor:
    batch = collate_packed([data[i] for i in members], PAD_ID).to(features.device)
    with_picture = [i for i in members if data[i].n_images]
    return loss_sum(*supervised_logits(vlm, batch, features=features[with_picture] if with_picture else None))


if __name__ == "__main__":
    main()
