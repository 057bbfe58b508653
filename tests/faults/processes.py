"""Who works in a project, found by what DVC puts into the environment of its stages, and by working folder."""

import contextlib
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil


def stages(project: Path) -> list[psutil.Process]:
    """Processes that DVC started in a project, and their children."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("DVC_ROOT") == str(project):
                found.append(process)
    return found


def dvcs(runner: int) -> list[psutil.Process]:
    """The `dvc` processes that a runner has started."""
    with contextlib.suppress(psutil.Error):
        return [p for p in psutil.Process(runner).children() if "repro" in p.cmdline()]
    return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that ended and was not waited for does not."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def lives(pid: int) -> bool:
    """Whether a process has this number and has not ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(alive([psutil.Process(pid)]))
    return False


def polled(seconds: float) -> Iterator[None]:
    """Come back every 50 ms until `seconds` are over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.05)


def moment(draw: random.Random, top: subprocess.Popen, project: Path, longest: float) -> bool:
    """Wait for a random moment of a run, mostly one when a stage is at work; False where the run ends before.

    How long a dvc takes to start depends on the machine; kills that all came before a stage would prove little.
    """
    if draw.random() < 0.8:
        for _ in polled(600):
            if top.poll() is not None or alive(stages(project)):
                break
    for _ in polled(draw.uniform(0, longest)):
        if top.poll() is not None:
            break
    return top.poll() is None


def seconds_until_quiet(project: Path, longest: float) -> float:
    """Seconds until no stage works in a project any more; fails where one still does after `longest`."""
    begin = time.monotonic()
    for _ in polled(longest):
        if not alive(stages(project)):
            return time.monotonic() - begin
    raise AssertionError(f"still at work after {longest} s: {[p.cmdline() for p in alive(stages(project))]}")
