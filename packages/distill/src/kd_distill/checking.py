"""Reading all pairs of a source once, so that what is wrong with them is known before a training."""

from collections.abc import Callable

from kd_distill.ahead import ahead
from kd_distill.decode import decode
from kd_distill.ledger import BadSampleError
from kd_distill.sources import Source

PIECE = 64  # pairs


def check_all(
    source: Source, *, workers: int = 1, timeout: float = 300.0, progress: Callable[[int], None] = lambda done: None
) -> dict[str, int]:
    """Decode every image and write those that cannot be used into the ledger; returns the ledger's counts by cause.

    Args:
        source: What is read.
        workers: Threads.
        timeout: Seconds for `PIECE` pairs.
        progress: Called with the number of pairs read.
    """
    total = len(source)

    def read(piece: int) -> int:
        stop = min((piece + 1) * PIECE, total)
        for row in range(piece * PIECE, stop):
            try:
                decode(source.image(row))
            except BadSampleError as bad:
                source.reject(row, bad)
        return stop

    def describe(piece: int) -> str:
        return f"The pairs {piece * PIECE} and up of {source.name}"

    for done in ahead(read, 0, -(-total // PIECE), workers=workers, timeout=timeout, describe=describe):
        progress(done)
    return source.counts()
