"""Work done ahead of its use in threads, in order, with an error in time when it hangs."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
AHEAD = 3  # pieces begun per thread before they are asked for
LEAVE = 5.0  # seconds that the threads have to end


class StalledError(TimeoutError):
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
    """`prepare(start)`, ..., `prepare(stop - 1)`, in this order, each begun in a thread before it is asked for.

    Decoding and resizing release the interpreter's lock, so threads use as many cores, share what is kept in memory,
    and start at once. What a piece raises is raised here.

    Args:
        prepare: Called with the number of a piece.
        start: First number.
        stop: One past the last.
        workers: Threads.
        timeout: Seconds to wait for one piece.
        describe: What a piece is, for the error.

    Raises:
        StalledError: If a piece takes longer than `timeout`.
    """
    threads, leave = _Threads(prepare, workers), LEAVE
    waiting = deque(threads.submit(number) for number in range(start, min(start + AHEAD * workers, stop)))
    try:
        for number in range(start, stop):
            future = waiting.popleft()
            if not wait([future], timeout).done:
                leave = 0.0
                raise StalledError(
                    f"{describe(number)} did not come within {timeout:g} s (data.timeout). Either the storage hangs, "
                    f"or this is too much for {workers} thread{'s' * (workers > 1)} (data.workers)."
                )
            if number + AHEAD * workers < stop:
                waiting.append(threads.submit(number + AHEAD * workers))
            yield future.result()
    finally:
        threads.close(leave)


class _Threads(Generic[T]):
    """Daemons: one that hangs in a read does not keep the process from ending."""

    def __init__(self, prepare: Callable[[int], T], workers: int) -> None:
        self._prepare, self._closed = prepare, False
        self._tasks: SimpleQueue[tuple[int, Future[T]] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True, name=f"data-{n}") for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, number: int) -> Future[T]:
        future: Future[T] = Future()
        self._tasks.put((number, future))
        return future

    def close(self, seconds: float) -> None:
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(seconds)

    def _work(self) -> None:
        torch.set_num_threads(1)
        while (task := self._tasks.get()) is not None:
            number, future = task
            if self._closed:
                continue
            try:
                future.set_result(self._prepare(number))
            except BaseException as error:
                future.set_exception(error)
