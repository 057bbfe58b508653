"""The share of one rank in a plan of micro-batches, each with what it counts in its step's loss."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from kd_vlm.sampling import Plan

WORKER_SECONDS = 300.0  # that a data worker may take for one micro-batch


@dataclass(frozen=True)
class MicroBatch:
    """What one process takes in one forward and backward pass.

    Attributes:
        step: Number of the optimiser step, from 0.
        place: Its number among the micro-batches of that step on its rank.
        samples: Indices into the corpus.
        accumulation: Micro-batches of that step on each rank; fewer than usual in the last step.
        step_supervised: Supervised tokens of the step over all ranks.
        step_tokens: All of its tokens, padding apart.
    """

    step: int
    place: int
    samples: tuple[int, ...]
    accumulation: int
    step_supervised: int
    step_tokens: int


def n_steps(plan: Plan, ranks: int, accumulation: int) -> int:
    """Optimiser steps of a plan for all ranks."""
    return -(-len(plan) // (ranks * accumulation))


def share_of(
    plan: Plan, *, rank: int, ranks: int, accumulation: int, supervised: Sequence[int], lengths: Sequence[int]
) -> list[MicroBatch]:
    """The micro-batches of `rank`: every `ranks`-th of the plan, `accumulation` of them a step.

    Args:
        supervised: Supervised tokens of each sample.
        lengths: Tokens of each sample.
    """
    share: list[MicroBatch] = []
    for step in range(n_steps(plan, ranks, accumulation)):
        whole = plan[step * ranks * accumulation : (step + 1) * ranks * accumulation]
        counts = [sum(each[i] for batch in whole for i in batch) for each in (supervised, lengths)]
        mine = whole[rank::ranks]
        share += [MicroBatch(step, k, tuple(samples), len(mine), *counts) for k, samples in enumerate(mine)]
    return share


class StalledError(RuntimeError):
    """A data worker died or hangs; the same command goes on from the last checkpoint (exit code 75)."""


class MicroBatches(Dataset[dict[str, Any]]):
    """What a data loader gives: the micro-batch and whatever `load` makes of its samples."""

    def __init__(self, share: Sequence[MicroBatch], load: Callable[[MicroBatch], dict[str, Any]]) -> None:
        self.share, self.load = share, load

    def __len__(self) -> int:
        return len(self.share)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"micro": self.share[index], **self.load(self.share[index])}

    def after(self, n: int) -> "MicroBatches":
        """Without the first `n`."""
        return MicroBatches(self.share[n:], self.load)

    def loader(self, workers: int) -> DataLoader[dict[str, Any]]:
        """In order; a worker that dies or hangs is an error with its process id, after `WORKER_SECONDS` at most."""
        return _Watched(self, batch_size=None, num_workers=workers, timeout=WORKER_SECONDS if workers else 0)


class _Watched(DataLoader[dict[str, Any]]):
    """A data loader whose errors about workers name them."""

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        inner = super().__iter__()
        workers = [worker.pid for worker in getattr(inner, "_workers", ())]
        while True:
            try:
                batch = next(inner)
            except StopIteration:
                return
            except RuntimeError as error:
                if workers and str(error).startswith("DataLoader "):  # torch's own, about its processes
                    raise StalledError(
                        f"The data workers (process ids {', '.join(map(str, workers))}) gave no micro-batch: {error}. "
                        "The last checkpoint stands; run again, with workers: 0 if it happens again."
                    ) from error
                raise
            yield batch
