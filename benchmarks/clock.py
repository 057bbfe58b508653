"""The clock of the benchmarks."""

import time
from collections.abc import Callable

import torch


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
