"""Run a DVC pipeline's stages side by side: each as soon as what it depends on is there, one log a stage.

`dvc repro` does the same one stage at a time. Here every stage is `dvc repro --single-item` in a process of its own, so
what DVC records is the same; its locks keep the processes apart.
"""

import os
import sys
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Protocol

from pipeline import missing
from pipeline.locktable import when_free
from pipeline.order import Finished, in_order
from pipeline.stage import outcome_of
from pipeline.stopping import Processes

GIB = 1024**3
MEMORY_A_JOB = 3 * GIB  # the largest stage of the embedded study takes 2.6


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


def environment(jobs: int, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """`env` with the cores divided between `jobs`; without it this process's, our commands first on the path."""
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"OMP_NUM_THREADS": str(max(1, cores() // jobs)), **(env or {**os.environ, "PATH": own})}


def dependencies(repo: Any, file: str) -> dict[str, set[str]]:
    """Stage: the stages it needs, for all of a dvc.yaml and what these need in other files of the DVC repository."""
    from networkx import descendants

    graph = repo.index.graph  # its edges lead from a stage to what it depends on
    # a stage is called `file:name`, or `name` in the root's own file
    wanted = {stage for stage in graph if Path(stage.path) == (Path(repo.root_dir) / file).resolve()}
    wanted |= {below for stage in wanted for below in descendants(graph, stage)}
    in_order = [stage for stage in repo.index.stages if stage in wanted]
    return {stage.addressing: {below.addressing for below in graph.successors(stage)} for stage in in_order}


def out_of_date(repo: Any, stages: Container[str]) -> set[str]:
    """Those of these stages that have to run by their own dependencies, parameters and outputs.

    `repo.status` says the same of targets, but reads all that DVC has recorded anew for each of them.
    """
    with repo.lock:
        some = [stage for stage in repo.index.stages if stage.addressing in stages]
        return {stage.addressing for stage in some if stage.status(check_updates=True)}


@dataclass(frozen=True)
class Paths:
    """What a stage reads and writes."""

    deps: tuple[Path, ...]
    outs: tuple[Path, ...]


def paths_of(repo: Any, stages: Container[str]) -> dict[str, Paths]:
    """Files and folders of stages; parameters are not among them."""
    found = {}
    for stage in repo.index.stages:
        if stage.addressing in stages:
            deps = [dep.fs_path for dep in stage.deps if not hasattr(dep, "params")]
            outs = [out.fs_path for out in stage.outs]
            found[stage.addressing] = Paths(tuple(map(Path, deps)), tuple(map(Path, outs)))
    return found


def why_held(stage: str, lost: set[str], paths: Mapping[str, Paths]) -> str:
    """Why a stage cannot run: something that it reads is not there, or was to come from a stage that is lost.

    A stage that reads the folder in which the lost stage's output would stand runs on what else is there: so are
    models registered, scored and reported when one of them is missing.
    """
    own = paths[stage].deps
    for before in sorted(lost):
        if any(dep == out or out in dep.parents for out in paths[before].outs for dep in own):
            return f"needs {before}"
    return next((f"{dep.name} is not there" for dep in own if not dep.exists()), "")


def reproduce(
    root: Path, file: str, jobs: int, board: Board, logs: Path, env: Mapping[str, str] | None = None
) -> list[Finished]:
    """Run what has to be run. What depends on a stage that failed is held back, all else runs.

    What is missing then, and why, stands in `missing.json` beside `logs` while the others run, for reports.

    Args:
        root: the repository's folder, and the current one: DVC names stages as they are seen from there.
        file: the dvc.yaml, relative to `root`.
        jobs: stages at a time.
        board: told of every start and end.
        logs: folder of one log a stage.
        env: of the stages; without it this process's, our commands first on the path.
    """
    processes = Processes()

    def run(stage: str) -> Finished:
        return _run_stage(processes, root, stage, _log(logs, stage), environment(jobs, env))

    return reproduce_by(run, processes.stop, root, file, jobs, board, logs)


def with_all_after(stages: set[str], needs: Mapping[str, set[str]]) -> set[str]:
    """These stages, and all that need one of them."""
    found: set[str] = set()
    for stage in TopologicalSorter(needs).static_order():
        if stage in stages or needs[stage] & found:
            found.add(stage)
    return found


def reproduce_by(
    run: Callable[[str], Finished],
    stop: Callable[[], None],
    root: Path,
    file: str,
    jobs: int,
    board: Board,
    logs: Path,
    begun: Callable[[str], bool] = lambda stage: False,
) -> list[Finished]:
    """`reproduce`, with stages run by `run`, which returns early after `stop`; those that are `begun` are run too.

    Raises:
        BusyError: If another dvc is at work on these stages, and stays.
    """
    from dvc.repo import Repo

    logs.mkdir(parents=True, exist_ok=True)
    with Repo(str(root)) as repo:
        needs = dependencies(repo, file)
        paths = paths_of(repo, needs)
        stale = with_all_after({stage for stage in needs if begun(stage)}, needs)
        if asked := needs.keys() - stale:  # of the others DVC cannot say anything while they are written
            stale |= when_free(lambda: out_of_date(repo, asked))

    ends = list[Finished]()
    note = logs.parent / "missing.json"
    missing.write(note, ends)

    def started(stage: str) -> None:
        board.started(stage, _log(logs, stage))

    def finished(end: Finished) -> None:
        ends.append(end)
        if end.outcome in ("failed", "held"):
            missing.write(note, ends)
        board.finished(end)

    def held(stage: str, lost: set[str]) -> str:
        return why_held(stage, lost, paths)

    return in_order(needs, stale, jobs, run, started, finished, stop, held)


def _log(logs: Path, stage: str) -> Path:
    return logs / f"{stage.replace('/', '--').replace(':', '--')}.log"


def _run_stage(processes: Processes, root: Path, stage: str, log: Path, env: dict[str, str]) -> Finished:
    command = [sys.executable, "-m", "pipeline.stage", "--wait-for-lock", "repro", "--single-item", stage]
    start = time.monotonic()
    with log.open("wb") as file:
        code = processes.run(command, root, env, file)
    return Finished(stage, "failed" if code else outcome_of(log.read_bytes()), time.monotonic() - start, log)
