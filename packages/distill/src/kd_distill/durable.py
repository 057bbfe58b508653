"""Files and folders that after a kill or a power cut are there as a whole or not at all.

What is written is synced before its name is: a name that lasted never leads to content that did not.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write a file beside its place, sync it and rename it.

    Raises:
        OSError: Where the disk is full, and the like; names the file, and what stood there stays.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        error.filename = error.filename or str(file)
        raise
    sync_names(file.parent)


def sync_names(folder: Path) -> None:
    """Make the names in a folder last: renames, new files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make all files and names below a folder last, before it is renamed into its place."""
    for place, _, files in os.walk(folder):
        for name in files:
            with (Path(place) / name).open("rb") as stream:
                os.fsync(stream.fileno())
        sync_names(Path(place))


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `folder` when all is written and synced.

    What stood there is moved aside before it is removed, so that its name never leads to a part of it.
    """
    part, old = (folder.with_name(f"{folder.name}.{what}") for what in ("part", "old"))
    for left in (part, old):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        sync_folder(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    sync_names(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
