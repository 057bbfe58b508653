"""DVC's table of locks, replaced as a whole: one that a killed dvc had half written would stop all others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


class WholeFiles:
    """A file system of DVC whose files appear in one move."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def open(self, path: str, mode: str = "r", **options: Any) -> Any:
        """As `open`; what is written takes the file's place when all of it is there."""
        return _written_whole(Path(path), options) if mode == "w" else self._fs.open(path, mode, **options)


@contextmanager
def _written_whole(file: Path, options: dict[str, Any]) -> Iterator[IO[str]]:
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with part.open("w", **options) as stream:
            yield stream
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def write_whole_tables() -> None:
    """Let this process's DVC write its table so."""
    from dvc import rwlock

    edit = rwlock._edit_rwlock
    rwlock._edit_rwlock = lambda folder, fs, hardlink: edit(folder, WholeFiles(fs), hardlink)
