"""Distinct pictures of a table: the first in memory, the others in a temporary file.

A suite has more than ten gigabytes of pictures, and a data set repeats a page or photo for every question on it. Here
each is held once, and what exceeds `IN_MEMORY` lies in a file that goes away with the last picture in it.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import IO

IN_MEMORY = 256 << 20  # bytes of one benchmark


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture in a temporary file."""

    stream: IO[bytes]
    start: int
    size: int

    def read(self) -> bytes:
        """Its bytes; any number of threads may read at once.

        Raises:
            OSError: If the file is cut short.
        """
        content = os.pread(self.stream.fileno(), self.size, self.start)
        if len(content) < self.size:
            raise OSError(f"A temporary file of pictures holds {len(content)} of {self.size} bytes.")
        return content


class Store:
    """Holds each distinct picture once.

    Args:
        in_memory: How many bytes stay in memory.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._left = in_memory
        self._seen: dict[bytes, bytes | Stored] = {}
        self._stream: IO[bytes] | None = None
        self._end = 0

    def keep(self, content: bytes) -> bytes | Stored:
        """The picture as it is held: the bytes given, equal ones that came before, or a place in the file."""
        name = hashlib.sha256(content).digest()
        if name not in self._seen:
            self._seen[name] = self._hold(content)
        return self._seen[name]

    def _hold(self, content: bytes) -> bytes | Stored:
        if len(content) <= self._left:
            self._left -= len(content)
            return content
        if self._stream is None:
            self._stream = tempfile.TemporaryFile(prefix="evalsuite-")  # noqa: SIM115  # closed with its last picture
        self._stream.write(content)
        self._stream.flush()
        start, self._end = self._end, self._end + len(content)
        return Stored(self._stream, start, len(content))
