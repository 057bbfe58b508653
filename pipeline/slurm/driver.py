"""Submits the stages of a study as jobs, each when what it depends on is there, and waits for them.

It may be killed and started again: jobs go on without it, and it finds them by what it wrote down.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contract.shared.durable import write_whole
from pipeline.order import ENDED_WELL, Finished
from pipeline.parallel import Board, reproduce_by
from pipeline.slurm.job import Place, StageJob, note
from pipeline.slurm.resources import Cluster
from pipeline.slurm.schedulers import Scheduler

POLL = 0.5  # seconds between two looks for a job's end
SHARED_FILES = 20.0  # seconds that a file of another node may need to be seen here


def place_of(root: Path, stage: str) -> Place:
    """Where the files of a stage's jobs are."""
    name = stage.replace("/", "--").replace(":", "--")
    return Place(root / "runs" / "slurm" / name, root / "runs" / "logs" / f"{name}.log")


class Driver:
    """Jobs of one study.

    Args:
        root: The repository, on a disk that all nodes share.
        cluster: What stages ask for.
        scheduler: Where jobs run.
    """

    def __init__(self, root: Path, cluster: Cluster, scheduler: Scheduler) -> None:
        self._root, self._cluster, self._scheduler = root, cluster, scheduler
        self._leaving = threading.Event()

    def reproduce(self, file: str, at_once: int, board: Board) -> list[Finished]:
        """As `pipeline.parallel.reproduce`, in jobs: `at_once` of them at most in the queue."""

        def begun(stage: str) -> bool:
            """Whether a job of it runs, which is waited for also where its outputs look finished already."""
            self._cluster.of(stage)  # an error about it comes before anything is submitted
            return self._running(place_of(self._root, stage)) is not None

        logs = self._root / "runs" / "logs"
        return reproduce_by(self.run, self._leaving.set, self._root, file, at_once, board, logs, begun)

    def running(self) -> Iterator[tuple[str, str]]:
        """(stage's folder name, job) of all jobs that are alive."""
        for record in sorted((self._root / "runs" / "slurm").glob("*/job.json")):
            place = Place(record.parent, record)
            if (job := self._running(place)) is not None:
                yield record.parent.name, job

    def run(self, stage: str) -> Finished:
        """Have a stage run in jobs until it has ended; one that is already running is waited for."""
        since, place = time.monotonic(), place_of(self._root, stage)
        left = {"again": self._cluster.again, "lost": self._cluster.lost}
        found = self._running(place)
        outcome = self._wait(place, found or self._submit(stage, place))
        if found and outcome in ENDED_WELL and self._is_stale(stage):
            outcome = "again"  # what it depends on has changed since it was submitted
        while left.get(outcome) and not self._leaving.wait(self._cluster.pause_seconds):
            left[outcome] -= 1
            outcome = self._wait(place, self._submit(stage, place))
        end: Any = outcome if outcome in ENDED_WELL else "failed"
        return Finished(stage, end, time.monotonic() - since, place.log)

    def _submit(self, stage: str, place: Place) -> str:
        place.folder.mkdir(parents=True, exist_ok=True)
        place.log.parent.mkdir(parents=True, exist_ok=True)
        body = StageJob(self._root, stage, place, self._cluster.save_seconds)
        job = self._scheduler.submit(body, place.folder.name, self._cluster.of(stage))
        write_whole(place.current, json.dumps({"job": job, "stage": stage}).encode() + b"\n")
        return job

    def _running(self, place: Place) -> str | None:
        """The job of a stage that was submitted last, if it has not ended."""
        try:
            job = str(json.loads(place.current.read_bytes())["job"])
        except FileNotFoundError:
            return None
        return job if not place.end(job).exists() and self._scheduler.alive(job) else None

    def _wait(self, place: Place, job: str) -> str:
        """How a job ended; `lost` where nobody knows."""
        end = place.end(job)
        while not self._leaving.is_set():
            if end.exists():
                return str(json.loads(end.read_bytes())["outcome"])
            if not self._scheduler.alive(job) and not _within(
                SHARED_FILES, lambda: end.exists() or self._scheduler.alive(job)
            ):
                note(place.log, f"job {job} is gone without a word: its node, its memory, or somebody's kill")
                return "lost"
            time.sleep(POLL)
        return "failed"

    def _is_stale(self, stage: str) -> bool:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "status", "--json", stage]
        said = subprocess.run(command, cwd=self._root, capture_output=True, text=True, check=False)
        return said.returncode != 0 or bool(json.loads(said.stdout or "{}"))


def _within(seconds: float, happens: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > until:
            return False
        time.sleep(POLL)
    return True
