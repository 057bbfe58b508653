"""Work done ahead of its use in threads, in order, with an error in time when it hangs."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

import torch

T = TypeVar("T")
AHEAD = 3  # pieces begun per thread before they are asked for
LEAVE = 5.0  # seconds that a thread has to end


class Stalled(TimeoutError):
    """A piece of data did not come in time (exit code 75: run again)."""


def ahead(
    prepare: Callable[[int], T],
    start: int,
    stop: int,
    *,
    workers: int = 1,
    timeout: float = 300.0,
    describe: Callable[[int], str] = str,
) -> Iterator[T]:
    """`prepare(start)`, ..., `prepare(stop - 1)` in this order, each begun in one of `workers` threads before it is asked for.

    Decoding and resizing release the interpreter's lock, so threads use as many cores, share what is kept in memory, and start at
    once. They are daemons: one that hangs in a read does not keep the process from ending. What a piece raises is raised here.

    Args:
        prepare: Called with the number of a piece.
        start: First number.
        stop: One past the last.
        workers: Threads.
        timeout: Seconds to wait for one piece.
        describe: What a piece is, for the error.

    Raises:
        Stalled: If a piece takes longer than `timeout`.
    """
    tasks: SimpleQueue[tuple[int, Future[T]] | None] = SimpleQueue()
    waiting: deque[Future[T]] = deque()
    closed = threading.Event()

    def work() -> None:
        torch.set_num_threads(1)
        while (task := tasks.get()) is not None:
            number, future = task
            if closed.is_set():
                continue
            try:
                future.set_result(prepare(number))
            except BaseException as error:  # noqa: BLE001  raised again where the piece is asked for
                future.set_exception(error)

    def submit(number: int) -> None:
        if number < stop:
            waiting.append(Future())
            tasks.put((number, waiting[-1]))

    threads = [threading.Thread(target=work, daemon=True, name=f"data-{n}") for n in range(workers)]
    for thread in threads:
        thread.start()
    for number in range(start, start + AHEAD * workers):
        submit(number)
    hung = False
    try:
        for number in range(start, stop):
            future = waiting.popleft()
            try:
                ready = future.result(timeout)
            except TimeoutError:
                if future.done():  # its own error, not ours
                    raise
                hung = True
                raise Stalled(
                    f"{describe(number)} did not come within {timeout:g} s (data.timeout): the storage hangs, or this is too "
                    "much for so few data.workers."
                ) from None
            submit(number + AHEAD * workers)
            yield ready
    finally:
        closed.set()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join(0 if hung else LEAVE)
