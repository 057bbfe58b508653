"""Calls in the order of a graph, several at a time; a failure holds back only what depends on it."""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal

from pipeline.stopping import or_else

LAST = {"held": 1, "failed": 2}  # where they stand among the ends
ENDED_WELL = ("ran", "same", "unchanged")


@dataclass(frozen=True)
class Finished:
    """One stage's end, why it is so, and its log.

    It ran, ran and left what had been there, had nothing to do, failed, or was held back by one that did.
    """

    stage: str
    outcome: Literal["ran", "same", "unchanged", "failed", "held"]
    seconds: float
    log: Path
    why: str = ""


def needs_lost(stage: str, lost: set[str]) -> str:
    """Hold a stage back where one that it needs is lost."""
    return f"needs {', '.join(sorted(lost))}" if lost else ""


class Walk:
    """How far a graph has been walked.

    Attributes:
        lost: stages that failed or were held back.
        ends: of all stages that did not stay as they were.
    """

    def __init__(self, needs: Mapping[str, set[str]], stale: set[str]) -> None:
        self.needs, self.lost, self.ends = needs, set[str](), list[Finished]()
        self._order = TopologicalSorter(needs)
        self._order.prepare()
        self._place = {stage: number for number, stage in enumerate(needs)}
        self._stale, self._waiting = set(stale), list[str]()

    def __bool__(self) -> bool:
        """Whether some stage has not ended."""
        return self._order.is_active()

    def take(self, count: int) -> list[str]:
        """Up to `count` stale stages whose needs have ended, in the order of the graph's file."""
        for stage in self._order.get_ready():
            if stage in self._stale:
                self._waiting.append(stage)
            else:
                self._order.done(stage)
        self._waiting.sort(key=self._place.__getitem__)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def settle(self, end: Finished) -> None:
        """Note the end of a stage that was taken."""
        self.ends.append(end)
        if end.outcome not in ("same", "unchanged"):
            self._stale |= {after for after, before in self.needs.items() if end.stage in before}
        if end.outcome in LAST:
            self.lost.add(end.stage)
        self._order.done(end.stage)


def in_order(
    needs: Mapping[str, set[str]],
    stale: set[str],
    jobs: int,
    run: Callable[[str], Finished],
    started: Callable[[str], None],
    finished: Callable[[Finished], None],
    stop: Callable[[], None] = lambda: None,
    held: Callable[[str, set[str]], str] = needs_lost,
) -> list[Finished]:
    """Call `run` for each stale stage and for those after one that changed something, `jobs` at a time.

    Args:
        needs: stage: the stages that it needs.
        stale: those that have to run.
        jobs: calls at a time.
        run: runs a stage.
        started: told of every start.
        finished: told of every end.
        stop: called when this is interrupted; it makes calls of `run` that go on return.
        held: given a stage and those it needs that failed or were held back; says why it cannot run, "" where it can.

    Returns:
        The ends of all stages that did not stay as they were; those that were held back and failed stand last.
    """
    walk = Walk(needs, stale)
    running: set[Future[Finished]] = set()

    def settle(end: Finished) -> None:
        finished(end)
        walk.settle(end)

    with ThreadPoolExecutor(jobs) as pool, or_else(stop):
        while walk:
            for stage in walk.take(jobs - len(running)):
                if why := held(stage, walk.lost & needs[stage]):
                    settle(Finished(stage, "held", 0.0, Path(), why))
                else:
                    started(stage)
                    running.add(pool.submit(run, stage))
            if running:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    settle(future.result())
    return sorted(walk.ends, key=lambda end: LAST.get(end.outcome, 0))
