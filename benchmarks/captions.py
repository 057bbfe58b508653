"""Token ids of captions of realistic lengths, for benchmarks, and how they measure time."""

import csv
import time
from collections.abc import Callable
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


def seconds(run: Callable[[], object], device: str) -> float:
    """CPU time of this thread; on a GPU the time that passed until it was done."""
    if device == "cpu":
        begin = time.thread_time()
        run()
        return time.thread_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def least(sides: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """The least seconds of each side, all sides in turn, `repeats` times."""
    found = {name: float("inf") for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            found[name] = min(found[name], seconds(run, device))
    return found
