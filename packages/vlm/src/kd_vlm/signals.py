"""Being asked to stop: a signal raises a flag, and the loop stops where its state is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stopped(Exception):  # noqa: N818  not an error
    """The training was asked to stop, and its checkpoint stands."""

    def __init__(self, number: int | None, step: int) -> None:
        number = number or signal.SIGTERM  # another rank's signal
        super().__init__(
            f"Stopped by {signal.Signals(number).name} after step {step}; the same command goes on from there."
        )
        self.exit_code = 130 if number == signal.SIGINT else 143


class StopFlag:
    """Which signal has come, if any. A handler that did more could meet a collective halfway and hang it."""

    number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler. A second SIGINT interrupts at once; the last checkpoint stands."""
        if number == signal.SIGINT and self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Handle SIGTERM, SIGUSR1 and SIGINT by a flag while inside; in another thread than the main one, not at all."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, flag) for number in ASKING}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
