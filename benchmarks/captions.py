"""Token ids of captions of realistic lengths, for benchmarks, and how they measure time."""

import csv
from pathlib import Path

import torch
from torch import Tensor

CONTEXT, START, END = 77, 49406, 49407
MEDIAN, SPREAD = 17.0, 0.45  # of the made-up lengths: log-normal, mean 19 tokens


def token_ids(n: int, captions: Path | None, generator: torch.Generator) -> tuple[Tensor, str]:
    """(n, 77) ids padded with zeros, and where their lengths come from.

    Args:
        n: Number of captions.
        captions: A CSV of image and caption; None makes lengths up.
        generator: Of the choice.
    """
    if captions is None:
        draw = (MEDIAN * (SPREAD * torch.randn(n, generator=generator)).exp()).round().clamp(4, CONTEXT).long()
        ids = torch.randint(1, START, (n, CONTEXT), generator=generator)
        places = torch.arange(CONTEXT)
        ids[places.expand(n, -1) >= draw[:, None]] = 0
        ids[:, 0] = START
        ids[torch.arange(n), draw - 1] = END
        return ids, f"log-normal lengths, median {MEDIAN:g}, sigma {SPREAD:g}"
    from open_clip.tokenizer import SimpleTokenizer

    with captions.open(newline="") as file:
        rows = [row[1] for row in list(csv.reader(file))[1:]]
    chosen = [rows[i] for i in torch.randperm(len(rows), generator=generator)[:n].tolist()]
    return SimpleTokenizer(context_length=CONTEXT)(chosen), f"{n} captions of {captions.parent.name}"


def lengths(ids: Tensor) -> Tensor:
    """Tokens of each row, start and end among them."""
    return ids.argmax(dim=1) + 1
