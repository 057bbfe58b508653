"""Stages that can be ended: by Ctrl-C or SIGTERM to the runner, gently at first."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

GRACE = 30.0  # seconds that a training has to end its step and save


class Asked(BaseException):
    """A signal has asked the runner to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 130 if number == signal.SIGINT else 143


class Processes:
    """The processes that run now, each the head of a group of its own: a terminal's Ctrl-C is ours to pass on."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], root: Path, env: dict[str, str], log: IO[bytes]) -> int:
        """Run a command to its end; its exit code. Nothing starts once `stop` was called."""
        with self._lock:
            if self._stopping.is_set():
                return -signal.SIGTERM
            process = subprocess.Popen(
                command, cwd=root, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            self._groups.add(process.pid)
        code = process.wait()
        if not self._stopping.is_set():  # else whoever stops waits for all of the group
            self._groups.discard(process.pid)
        return code

    def stop(self) -> None:
        """Ask all of every group to stop, wait until they have, and kill what is left, at once if interrupted again."""
        with self._lock:
            self._stopping.set()
        until = time.monotonic() + GRACE
        try:
            self._signal(signal.SIGTERM)
            while self._signal(0) and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> bool:
        """Whether there was somebody to get it."""
        alive = False
        for group in list(self._groups):
            try:
                os.killpg(group, number)
                alive = True
            except ProcessLookupError:
                self._groups.discard(group)
        return alive


@contextmanager
def or_else(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` where what is inside does not come to its end."""
    try:
        yield
    except BaseException:
        stop()
        raise


@contextmanager
def asked_to_stop() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Asked` while inside."""

    def ask(number: int, frame: FrameType | None) -> None:
        raise Asked(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
