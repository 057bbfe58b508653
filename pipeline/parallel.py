"""Run a DVC pipeline's stages side by side: each as soon as what it depends on is there, one log a stage.

`dvc repro` does the same one stage at a time. Here every stage is `dvc repro --single-item` in a process of its own, so
what DVC records is the same; its locks keep the processes apart.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal, Protocol

from pipeline.stopping import Processes, or_else

GIB = 1024**3
MEMORY_A_JOB = 3 * GIB  # the largest stage of the embedded study takes 2.6


@dataclass(frozen=True)
class Finished:
    """One stage's end: whether it ran or had nothing to do, and its log."""

    stage: str
    outcome: Literal["ran", "unchanged", "failed"]
    seconds: float
    log: Path


class Board(Protocol):
    """Where progress is shown."""

    def started(self, stage: str, log: Path) -> None: ...
    def finished(self, end: Finished) -> None: ...


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sensible_jobs() -> int:
    """Stages at a time: one a core, as many as memory holds."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores(), memory // MEMORY_A_JOB))


def environment(jobs: int) -> dict[str, str]:
    """This process's environment with our commands first on the path and the cores divided between `jobs`."""
    threads = max(1, cores() // jobs)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"OMP_NUM_THREADS": str(threads), **os.environ, "PATH": path}


def dependencies(repo: Any, file: str) -> dict[str, set[str]]:
    """Stage: the stages it needs, for all of a dvc.yaml and what these need in other files of the DVC repository."""
    from networkx import descendants

    graph = repo.index.graph  # its edges lead from a stage to what it depends on
    # a stage is called `file:name`, or `name` in the root's own file
    wanted = {stage for stage in graph if Path(stage.path) == (Path(repo.root_dir) / file).resolve()}
    wanted |= {below for stage in wanted for below in descendants(graph, stage)}
    in_order = [stage for stage in repo.index.stages if stage in wanted]
    return {stage.addressing: {below.addressing for below in graph.successors(stage)} for stage in in_order}


def reproduce(root: Path, file: str, jobs: int, board: Board, logs: Path) -> list[Finished]:
    """Run what has to be run. After a failure nothing new starts and the result ends with what failed.

    Args:
        root: the repository's folder.
        file: the dvc.yaml, relative to `root`.
        jobs: stages at a time.
        board: told of every start and end.
        logs: folder of one log a stage.
    """
    from dvc.repo import Repo

    logs.mkdir(parents=True, exist_ok=True)
    with Repo(str(root)) as repo:
        needs = dependencies(repo, file)
        stale = set(repo.status(targets=sorted(needs)))  # by their own dependencies, parameters and outputs

    processes = Processes()

    def run(stage: str) -> Finished:
        return _run_stage(processes, root, stage, _log(logs, stage), environment(jobs))

    def started(stage: str) -> None:
        board.started(stage, _log(logs, stage))

    return in_order(needs, stale, jobs, run, started, board.finished, processes.stop)


def in_order(
    needs: Mapping[str, set[str]],
    stale: set[str],
    jobs: int,
    run: Callable[[str], Finished],
    started: Callable[[str], None],
    finished: Callable[[Finished], None],
    stop: Callable[[], None] = lambda: None,
) -> list[Finished]:
    """Call `run` for each stale stage and for those after a stage that ran, `jobs` at a time.

    `stop` is called when this is interrupted; it makes calls of `run` that go on return.
    """
    order = TopologicalSorter(needs)
    order.prepare()
    waiting: list[str] = []
    running: dict[Future[Finished], str] = {}
    ends: list[Finished] = []
    stale = set(stale)
    with ThreadPoolExecutor(jobs) as pool, or_else(stop):
        while order.is_active():
            for stage in order.get_ready():
                if stage in stale:
                    waiting.append(stage)
                else:
                    order.done(stage)
            waiting.sort(key=list(needs).index)
            failed = any(end.outcome == "failed" for end in ends)
            while waiting and len(running) < jobs and not failed:
                stage = waiting.pop(0)
                started(stage)
                running[pool.submit(run, stage)] = stage
            if not running:
                if failed:
                    break
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                end = future.result()
                stage = running.pop(future)
                finished(end)
                ends.append(end)
                if end.outcome == "ran":
                    stale |= {after for after, before in needs.items() if stage in before}
                if end.outcome != "failed":
                    order.done(stage)
    return sorted(ends, key=lambda end: end.outcome == "failed")


def _log(logs: Path, stage: str) -> Path:
    return logs / f"{stage.replace('/', '--').replace(':', '--')}.log"


def _run_stage(processes: Processes, root: Path, stage: str, log: Path, env: dict[str, str]) -> Finished:
    command = [sys.executable, "-m", "pipeline.stage", "--wait-for-lock", "repro", "--single-item", stage]
    start = time.monotonic()
    with log.open("wb") as file:
        code = processes.run(command, root, env, file)
    ran = b"Running stage '" in log.read_bytes()
    outcome: Literal["ran", "unchanged", "failed"] = "failed" if code else ("ran" if ran else "unchanged")
    return Finished(stage, outcome, time.monotonic() - start, log)
