"""Writing files whose bytes depend on their content alone: no clock, no user name, no order of a directory."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Member = tuple[str, bytes]


def write_bytes(path: Path, content: bytes) -> None:
    """`content` at `path`, with the folders that lead there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """UTF-8 with line feeds as they are, on every system."""
    write_bytes(path, text.encode())


def json_text(value: Any) -> str:
    """JSON in one line, keys in the order given."""
    return json.dumps(value, ensure_ascii=False)


def write_tar(path: Path, members: Iterable[Member]) -> None:
    """An uncompressed tar of (name, content), owned by nobody at time 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            header.mode = 0o644
            tar.addfile(header, io.BytesIO(content))
