"""What runs inside a job: one stage, with its own log, able to be asked to save and go on later."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from contract.shared.durable import write_whole
from pipeline.stage import outcome_of

Outcome = Literal["ran", "same", "unchanged", "failed", "again"]
# a stage's command says that it was stopped (143) or should be run again (75); dvc itself ends with 255 then
AGAIN = re.compile(rb"exited with (75|143)\b")
POLL = 0.1
CANCEL_SECONDS = 0.5


@dataclass(frozen=True)
class Place:
    """Where the files of a stage's jobs are.

    Attributes:
        folder: Of this stage alone: which job runs it, how each ended, the lock.
        log: Of the stage, all its jobs one after the other.
    """

    folder: Path
    log: Path

    @property
    def current(self) -> Path:
        """Names the job that was submitted last."""
        return self.folder / "job.json"

    def end(self, job: str) -> Path:
        """How a job ended; written by the job."""
        return self.folder / f"end-{job}.json"


@dataclass
class StageJob:
    """One stage as submitit runs it; called again after a requeue it goes on."""

    root: Path
    stage: str
    place: Place
    save_seconds: float
    process: Any = None

    def __call__(self) -> str:
        """Run the stage to its end, and write down how that was.

        A second job of the same stage, which a driver may submit that was killed at the wrong moment, waits for the
        first and finds nothing to do. On further nodes of a job of several it waits for the first node.
        """
        import submitit
        from filelock import FileLock

        about = submitit.JobEnvironment()
        end = self.place.end(about.job_id)
        if about.global_rank:
            while not end.exists():
                time.sleep(1)
            return "elsewhere"
        self.place.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.place.folder / "lock"):
            since = time.monotonic()
            outcome = self._run(f"job {about.job_id} on {socket.gethostname()}")
            found = {"stage": self.stage, "outcome": outcome, "seconds": time.monotonic() - since}
            write_whole(end, json.dumps(found | {"host": socket.gethostname()}).encode() + b"\n")
        return outcome

    def checkpoint(self) -> Any:
        """Called by submitit when the job is preempted or its time is up: let the stage save, and be queued again."""
        from submitit.helpers import DelayedSubmission

        note(self.place.log, "asked to save; it is queued again")
        if self.process is not None:
            _stop(self.process, self.save_seconds * 0.8)
        self.process = None
        return DelayedSubmission(self)

    def _run(self, who: str) -> Outcome:
        command = [sys.executable, "-m", "pipeline.stage", "--wait-for-lock", "repro", "--single-item", self.stage]
        self.place.log.parent.mkdir(parents=True, exist_ok=True)
        note(self.place.log, who)
        start = self.place.log.stat().st_size
        with self.place.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.root, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                while (code := self.process.poll()) is None:  # not wait(): a signal's handler asks too
                    time.sleep(POLL)
            except BaseException:  # cancelled: whoever did it kills this process in a moment
                if self.process is not None:
                    _stop(self.process, CANCEL_SECONDS)
                raise
        with self.place.log.open("rb") as log:
            log.seek(start)
            said = log.read()
        if code:
            return "again" if AGAIN.search(said) else "failed"
        return outcome_of(said)


def note(log: Path, text: str) -> None:
    """A line about the jobs of a stage in its log."""
    with log.open("ab") as file:
        file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())


def _stop(process: Any, seconds: float) -> None:
    """Ask the stage's command to stop, and kill what is left after `seconds`.

    Not dvc itself: it ends by itself when its command does, and killed while it writes its table of locks it would
    leave half of one to all others.
    """
    import psutil

    until, asked = time.monotonic() + seconds, set[int]()
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                if child.pid not in asked:
                    asked.add(child.pid)
                    child.terminate()
        time.sleep(POLL)
    while _alive(asked) and time.monotonic() < until:  # dvc has gone before those that still save
        time.sleep(POLL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _alive(pids: set[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)
