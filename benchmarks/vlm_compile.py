"""A training step over packed rows of one length, its layers compiled against eager: seconds, and the same loss.

    python benchmarks/vlm_compile.py [--width 512] [--layers 4] [--row 1024] [--precision fp32] [--device cpu]

Both sides are one model: compiled layers run as they are written inside `as_written`. Rows are filled with samples of
mix665k's composition (see `vlm_models.PARTS`) up to the last that fits, and padded; features given, logits where
supervised, forward and backward. Said apart: what compiling costs once, and how many graphs there are after all rows.
What could be had at best is a step without the passes over memory that fusing saves; products stay what they are.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from clock import least
from figures import Figure, show
from kd_vlm.assembly import Vlm
from kd_vlm.batch import Batch, collate_packed, loss_sum, supervised_logits
from kd_vlm.compiling import as_written, compiled_layers
from kd_vlm.packed_attention import BY_SAMPLE, language_attention
from kd_vlm.watching import cast
from torch._dynamo.utils import counters
from vlm_models import PAD_ID, mix, sample, small_vlm

PER_IMAGE = 49
Row = tuple[Batch, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--row", type=int, default=1024, help="tokens of a packed row")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    vlm = small_vlm(args.width, args.layers, edge=112)
    vlm.model.to(args.device)
    packed = [row for _, row in zip(range(args.rows), rows(args.row, args.device), strict=False)]
    print(f"load average {os.getloadavg()[0]:.1f}; rows of {args.row}, {[b.n_tokens for b, _ in packed]} tokens")
    with (
        language_attention(vlm.model, BY_SAMPLE),
        compiled_layers(vlm.model, True),
        cast(args.precision, torch.device(args.device)),
    ):
        began = time.perf_counter()
        step(vlm, packed[0])
        first = time.perf_counter() - began
        graphs = counters["stats"]["unique_graphs"]
        losses = [[step(vlm, row, eager=eager) for row in packed] for eager in (True, False)]
        sides = {
            "eager": lambda: [step(vlm, row, eager=True) for row in packed],
            "compiled": lambda: [step(vlm, row) for row in packed],
        }
        seconds = least(sides, args.repeats, args.device)
    apart = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
    print(
        f"the first step took {first:.0f} s: {graphs} graphs of a layer; after all rows there are "
        f"{counters['stats']['unique_graphs']}"
    )
    precision = f"{args.precision}, width {args.width}"
    show(
        Figure(
            f"a step over packed rows, layers compiled against eager, {precision}",
            seconds["eager"] / seconds["compiled"],
            seen=f"{seconds['eager'] / args.rows:.2f} s against {seconds['compiled'] / args.rows:.2f} s",
        ),
        Figure("graphs compiled after the first step", counters["stats"]["unique_graphs"] - graphs, at_most=0, unit=""),
        Figure(
            f"relative difference of the losses, {precision}",
            apart,
            at_most=1e-2 if args.precision == "bf16" else 1e-5,
            unit="",
        ),
    )


def rows(tokens: int, device: str) -> Iterator[Row]:
    """Packed rows of one length, and the features of their pictures."""
    drawn, rng = mix(10_000, longest=tokens // 2), np.random.default_rng(0)
    generator, held, n = torch.Generator().manual_seed(0), [], 0
    for text, supervised, images in zip(drawn.text, drawn.supervised, drawn.n_images, strict=True):
        one = sample(int(text), int(supervised), int(images), PER_IMAGE, rng)
        if n + len(one.ids) > tokens:
            batch = collate_packed(held, PAD_ID, row_tokens=tokens).to(device)
            yield batch, torch.randn(batch.n_images, PER_IMAGE, 192, generator=generator).to(device)
            held, n = [], 0
        held.append(one)
        n += len(one.ids)


def step(vlm: Vlm, row: Row, *, eager: bool = False) -> float:
    batch, features = row
    vlm.model.zero_grad(set_to_none=True)
    with as_written() if eager else nullcontext():
        logits, targets = supervised_logits(vlm, batch, features=features if len(features) else None)
        loss = loss_sum(logits, targets) / len(targets)
        loss.backward()
    return loss.item()


if __name__ == "__main__":
    main()
