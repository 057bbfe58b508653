"""Pairs that cannot be used: why, which, how many, and when there are too many of them.

A bad pair never stops a run by itself and never disappears: it is skipped, another one stands in for it (`Pairs`), and
a line in the ledger names it. The ledger stands with the index of the data, not with a run: every run on the same
files, resumed or not, on any number of ranks, skips the same pairs.
"""

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from kd_distill.reading import FileError, checked, parse_json


class Cause(StrEnum):
    """Why a pair is skipped."""

    NO_IMAGE = "caption without image"
    NO_CAPTION = "image without caption"
    DUPLICATE = "key seen before"
    UNSAFE = "name leads out of its folder"
    TRUNCATED_TAR = "lost in a cut shard"
    LOST = "in the manifest, not in the shard"
    COLUMNS = "row with another number of columns"
    EMPTY = "empty caption"
    NULL = "caption is a printed null"
    ENCODING = "caption not UTF-8"
    NUL = "NUL byte in the caption"
    LONG = "caption too long"
    MISSING = "image file missing"
    NOT_AN_IMAGE = "not an image of a known format"
    TRUNCATED = "damaged or truncated image"
    PIXELS = "too many pixels"


class BadSampleError(ValueError):
    """One pair cannot be used."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause, self.detail = cause, detail


class TooManyBadError(ValueError):
    """More pairs than `data.bad_limit` allows cannot be used (exit code 3)."""


@dataclass(frozen=True)
class Entry:
    """One line: `row` is the pair's number in the index, None where it has none because it never came into it."""

    file: str
    key: str
    cause: Cause
    detail: str
    row: int | None = None


class Ledger:
    """The bad pairs of one set of files, in a file of JSON lines or, without `path`, in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        entries = read_entries(path) if path and path.exists() else []
        self.outside = [e for e in entries if e.row is None]
        self.rows = {e.row: e for e in entries if e.row is not None}

    def __len__(self) -> int:
        return len(self.outside) + len(self.rows)

    def add(self, entry: Entry) -> None:
        """Note a pair of the index; one that is known is not written again."""
        assert entry.row is not None  # noqa: S101  what never came into the index was written with it
        with self._lock:
            if entry.row in self.rows:
                return
            if self.path:
                append(self.path, [entry])
            self.rows[entry.row] = entry

    @property
    def counts(self) -> dict[str, int]:
        """Pairs by cause, most frequent first."""
        causes = Counter(str(e.cause) for e in [*self.outside, *self.rows.values()])
        return dict(causes.most_common())


def read_entries(path: Path) -> list[Entry]:
    """The lines of a ledger; one that a kill cut short is left out."""
    records = []
    for line in path.read_bytes().split(b"\n"):
        with suppress(FileError):  # its pair is found and written again
            records += [parse_json(line, str(path))] if line else []
    found: list[Entry] = checked(list[Entry], records, str(path))
    return found


def append(path: Path, entries: Iterable[Entry]) -> None:
    """Add lines in one write each, so that processes that share the file do not mix theirs."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        end = os.lseek(file, 0, os.SEEK_END)
        start = b"\n" if end and os.pread(file, 1, end - 1) != b"\n" else b""  # after a line that was cut short
        for entry in entries:
            os.write(file, start + json.dumps(asdict(entry)).encode() + b"\n")
            start = b""
    finally:
        os.close(file)


def refuse_too_many(ledger: Ledger, name: str, pairs: int, limit: float) -> None:
    """Raise TooManyBadError where more than the share `limit` of all pairs, usable ones and others, is in the ledger.

    Args:
        ledger: The bad pairs.
        name: Of the data, for the message.
        pairs: In the index, those found bad later among them.
        limit: Largest share.
    """
    total = pairs + len(ledger.outside)
    if len(ledger) <= limit * total:
        return
    causes = "; ".join(f"{count} {cause}" for cause, count in ledger.counts.items())
    first = next(iter([*ledger.outside, *ledger.rows.values()]))
    where = f" All of them stand in {ledger.path}." if ledger.path else ""
    raise TooManyBadError(
        f"{name}: {len(ledger)} of {total} pairs cannot be used, expected at most {limit:.2%} (data.bad_limit): "
        f"{causes}. The first: {first.file}, {first.key}: {first.detail}.{where} Repair the data, or raise "
        "data.bad_limit."
    )


def refuse_too_frequent(counts: dict[str, int], name: str, failed: int, tried: int, limit: float) -> None:
    """The same for a large set, long before all of it was read.

    `failed` of `tried` pairs are refused from five standard deviations above the limit on, so that a set whose share
    lies below it is practically never refused.
    """
    if failed > limit * tried + 5 * math.sqrt(limit * tried) + 5:
        causes = "; ".join(f"{count} {cause}" for cause, count in counts.items())
        raise TooManyBadError(
            f"{name}: {failed} of the {tried} pairs read so far cannot be used, expected at most {limit:.2%} "
            f"(data.bad_limit): {causes}. Repair the data, or raise data.bad_limit."
        )
