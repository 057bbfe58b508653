"""Files and folders that after a kill or a power cut are there as a whole or not at all.

What is written is synced before its name is: a name that lasted never leads to content that did not.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
WORDS = (  # of SQLite, safetensors and shutil, which lose the number
    *("database or disk is full", "No space left on device", "File too large", "Disk quota exceeded"),
    *("os error 28", "os error 27", "os error 122"),
)


def storage_trouble(error: BaseException) -> str | None:
    """What to say where `error`, or what led to it, is a disk without room or a place that is not ours to write.

    Names the file if it is known, and says what to do. None for all other errors.
    """
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    full = any(_says_full(one) for one in chain)
    if not full and not any(isinstance(one, OSError) and one.errno in CLOSED for one in chain):
        return None
    files = [str(one.filename) for one in chain if isinstance(one, OSError) and one.filename]
    place = f"{files[0]}: " if files and files[0] not in str(chain[0]) else ""
    advice = "make room" if full else "name a place that you may write"
    return f"{place}{chain[0]}. What stood there before stands; {advice} and run the same command again."


def _says_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in FULL or any(word in str(error) for word in WORDS)


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
