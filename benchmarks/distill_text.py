"""Captions cut to their length against captions padded to 77 tokens: the text tower alone, and a cached step.

    python benchmarks/distill_text.py [--captions captions.csv] [--batch 32] [--device cpu]

Student ViT-T/16, forward and backward; the step adds the image tower, the losses of CLIP-KD and AdamW. Several batches,
both sides in turn in one process, the least time of each batch, summed. The limit is the number of tokens: what is
padded over what is said.
"""

import argparse
import os
from pathlib import Path

import torch
from captions import CONTEXT, lengths, token_ids
from clock import least
from distill_cached_step import Padded, Step, fake_cache, student_of
from figures import Figure, show
from kd_distill.batch import Batch
from kd_distill.text import encode_text, like_lengths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, help="CSV of image and caption; without it lengths are made up")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    ids, said = token_ids(args.batch * args.batches, args.captions, draw)
    _, student, preprocessing = student_of(args.device)
    step = Step(student, preprocessing, args.device)
    targets = fake_cache(args.batch, step.teacher, draw)
    print(f"load average {os.getloadavg()[0]:.1f}; {said}; mean {lengths(ids).float().mean():.1f} tokens")

    total = {"tower padded": 0.0, "tower cut": 0.0, "step padded": 0.0, "step cut": 0.0}
    difference, run = 0.0, 0
    for tokens in ids.to(args.device).split(args.batch):
        images = torch.randint(0, 256, (args.batch, 3, 224, 224), dtype=torch.uint8, generator=draw)
        batch = Batch(images.to(args.device), tokens, (targets,))
        with torch.no_grad():
            padded, cut = student.encode_text(tokens), encode_text(student, tokens)
        difference = max(difference, (padded - cut).abs().max().item())
        run += sum(t * len(rows) for t, rows in like_lengths(lengths(tokens).tolist(), CONTEXT))
        sides = {
            "tower padded": lambda ids=tokens: student.encode_text(ids).sum().backward(),
            "tower cut": lambda ids=tokens: encode_text(student, ids).sum().backward(),
            "step padded": lambda batch=batch: step(batch, Padded(student)),
            "step cut": lambda batch=batch: step(batch, student),
        }
        for name, value in least(sides, args.repeats, args.device).items():
            total[name] += value
    limit = ids.numel() / lengths(ids).sum().item()
    tower, whole = total["tower padded"] / total["tower cut"], total["step padded"] / total["step cut"]
    for name, value in total.items():
        print(f"{name:13} {value / args.batches:8.3f} s a batch")
    rest = (total["step padded"] - total["tower padded"]) / total["step padded"]
    print(f"as rows are grouped and lengths rounded up: {ids.numel() / run:.2f}x tokens")
    show(
        Figure(
            "text tower, captions cut against padded",
            tower,
            at_least=2.3,
            limit=limit,
            limit_of="tokens",
            seen=f"{total['tower padded'] / args.batches:.2f} s against {total['tower cut'] / args.batches:.2f} s",
        ),
        Figure(
            "cached step, captions cut against padded",
            whole,
            at_least=1.4,
            limit=1 / (rest + (1 - rest) / limit),
            limit_of=f"tokens; other parts take {rest:.0%} of the padded step",
            seen=f"{total['step padded'] / args.batches:.2f} s against {total['step cut'] / args.batches:.2f} s",
        ),
        Figure("largest difference of an embedding", difference, "", at_most=0),
    )


if __name__ == "__main__":
    main()
