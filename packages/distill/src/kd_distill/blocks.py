"""What was read over the network, kept on a disk of this machine: blocks of files; the oldest make room for others."""

import hashlib
import mmap
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

DIGEST = hashlib.sha256().digest_size
STRIPES = 64  # locks; two blocks that share one wait for each other
MAPPED = 256  # blocks that a process has at hand
TOUCH_SECONDS = 60.0
SHARE_A_SWEEP = 16  # of the limit, written between two looks at what there is


class BlockCache:
    """Blocks of files by content key and number, each in a file behind its sha256.

    Threads and processes of one machine share a folder: one of them fetches a block, and the others wait for it.

    Args:
        folder: On a local disk; made when something is kept.
        limit: Bytes of all blocks together, more or less.
        block: Bytes of one.
    """

    def __init__(self, folder: Path, limit: int, block: int) -> None:
        self.folder, self.limit, self.block = folder, max(limit, 2 * block), block
        self._mapped: dict[tuple[str, int], mmap.mmap] = {}  # verified when they were mapped
        self._touched: dict[tuple[str, int], float] = {}
        self._written = self.limit  # so that the first write looks
        self._lock = threading.Lock()

    def read(self, key: str, size: int, start: int, stop: int, fetch: Callable[[int, int], bytes]) -> bytes:
        """The bytes `start` to `stop` of the file `key` of `size` bytes; `fetch(start, stop)` reads them afar."""
        pieces = []
        for number in range(start // self.block, -(-stop // self.block)):
            first, last = number * self.block, min((number + 1) * self.block, size)
            block = self._mapped.get((key, number))
            if block is None:
                block = self._opened(key, number, last - first, partial(fetch, first, last))
            elif time.monotonic() - self._touched.get((key, number), 0.0) > TOUCH_SECONDS:
                self._touch(key, number)
            pieces.append(block[DIGEST + max(start, first) - first : DIGEST + min(stop, last) - first])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _place(self, key: str, number: int) -> Path:
        return self.folder / key / f"{number:06d}"

    def _opened(self, key: str, number: int, size: int, fetch: Callable[[], bytes]) -> mmap.mmap:
        """The block, mapped; fetched where it is not here or is not what was fetched."""
        from filelock import FileLock

        path = self._place(key, number)
        if (block := self._kept(path, size)) is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            stripe = int(hashlib.sha256(f"{key} {number}".encode()).hexdigest()[:4], 16) % STRIPES
            with FileLock(self.folder / f"{stripe}.lock", poll_interval=0.01):
                if (block := self._kept(path, size)) is None:
                    data = fetch()
                    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
                    part.write_bytes(hashlib.sha256(data).digest() + data)
                    block = _map(part)  # it stays readable, whoever makes room
                    part.replace(path)
                    self._make_room(len(data))
        with self._lock:
            while len(self._mapped) >= MAPPED:
                self._mapped.pop(next(iter(self._mapped)))
            self._mapped[key, number] = block
        self._touch(key, number)
        return block

    def _kept(self, path: Path, size: int) -> mmap.mmap | None:
        with suppress(FileNotFoundError):
            if path.stat().st_size == DIGEST + size:
                block = _map(path)
                if block[:DIGEST] == hashlib.sha256(memoryview(block)[DIGEST:]).digest():
                    return block
            path.unlink(missing_ok=True)
        return None

    def _touch(self, key: str, number: int) -> None:
        self._touched[key, number] = time.monotonic()
        with suppress(FileNotFoundError):
            os.utime(self._place(key, number))

    def _make_room(self, written: int) -> None:
        with self._lock:
            self._written += written
            if self._written < self.limit // SHARE_A_SWEEP:
                return
            self._written = 0
            blocks = []
            for path in self.folder.glob("*/*"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    blocks.append((status.st_mtime_ns, status.st_size, path))
            total = sum(size for _, size, _ in blocks)
            for _, size, path in sorted(blocks):
                if total <= self.limit:
                    break
                path.unlink(missing_ok=True)
                total -= size


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
