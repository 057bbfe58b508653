"""What was read over the network, kept on a disk of this machine: blocks of files; the oldest make room for others."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

DIGEST = hashlib.sha256().digest_size
STRIPES = 64  # locks; two blocks that share one wait for each other
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
        self._verified: dict[Path, float] = {}  # when it was touched last
        self._written = self.limit  # so that the first write looks
        self._lock = threading.Lock()

    def read(self, key: str, size: int, start: int, stop: int, fetch: Callable[[int, int], bytes]) -> bytes:
        """The bytes `start` to `stop` of the file `key` of `size` bytes; `fetch(start, stop)` reads them afar."""
        pieces = []
        for number in range(start // self.block, -(-stop // self.block)):
            first, last = number * self.block, min((number + 1) * self.block, size)
            within = max(start, first) - first, min(stop, last) - first
            pieces.append(self._piece(self.folder / key / f"{number:06d}", *within, partial(fetch, first, last)))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, path: Path, start: int, stop: int, fetch: Callable[[], bytes]) -> bytes:
        from filelock import FileLock

        if (kept := self._kept(path, start, stop)) is not None:
            return kept
        path.parent.mkdir(parents=True, exist_ok=True)
        stripe = int(hashlib.sha256(str(path).encode()).hexdigest()[:4], 16) % STRIPES
        with FileLock(self.folder / f"{stripe}.lock", poll_interval=0.01):
            if (kept := self._kept(path, start, stop)) is not None:
                return kept
            data = fetch()
            part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
            part.write_bytes(hashlib.sha256(data).digest() + data)
            part.replace(path)
        self._verified[path] = time.monotonic()
        self._make_room(len(data))
        return data[start:stop]

    def _kept(self, path: Path, start: int, stop: int) -> bytes | None:
        """The bytes, if this block is here and is what was fetched; that is checked once a process."""
        try:
            with path.open("rb") as file:
                if path not in self._verified and file.read(DIGEST) != hashlib.sha256(file.read()).digest():
                    path.unlink(missing_ok=True)
                    return None
                file.seek(DIGEST + start)
                data = file.read(stop - start)
        except FileNotFoundError:
            return None
        now = time.monotonic()
        if now - self._verified.get(path, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._verified[path] = now
            with suppress(FileNotFoundError):
                os.utime(path)
        return data if len(data) == stop - start else None

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
                self._verified.pop(path, None)
                total -= size
