"""DVC's table of locks: replaced as a whole, rid of the dead, waited for.

One that a killed dvc had half written would stop all others, and so would the lock of a dead process whose number is
still there.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")

SECONDS = 30.0  # that a dvc which is ending has for it


class BusyError(RuntimeError):
    """Another dvc holds what is asked for, and keeps it."""


def when_free(ask: Callable[[], T], seconds: float = SECONDS) -> T:
    """What `ask` gives, asked again while another dvc holds a lock that it needs.

    Raises:
        BusyError: If it is held for longer than `seconds`; names the process.
    """
    from dvc.lock import LockError
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

    held, until = retry_if_exception_type(LockError), stop_after_delay(seconds)
    try:
        return Retrying(retry=held, stop=until, wait=wait_fixed(0.2), reraise=True)(ask)
    except LockError as error:
        who = str(error).partition("\n\n")[0]  # what follows advises to remove the whole table
        raise BusyError(
            f"Another dvc is at work here, for over {seconds:.0f} s: {who}\nWait for it, or stop it."
        ) from None


def forget_ended(folder: Path) -> int:
    """Drop the locks of processes that have ended from the table in `folder` (`.dvc/tmp`); their number.

    DVC itself keeps a lock while a process has the holder's number. A dvc whose runner was killed keeps its own after
    its end, until the system's first process collects it: two seconds later, in some containers never.
    """
    from dvc.fs import localfs
    from dvc.rwlock import _edit_rwlock

    file = folder / "rwlock"
    written = file.stat().st_mtime
    if not any(_has_ended(pid, written) for pid in _holders(json.loads(file.read_bytes()))):
        return 0
    with _edit_rwlock(str(folder), WholeFiles(localfs), False) as table:
        ended = {pid for pid in _holders(table) if _has_ended(pid, written)}
        table["write"] = {path: who for path, who in table["write"].items() if who["pid"] not in ended}
        left = {path: [who for who in all_ if who["pid"] not in ended] for path, all_ in table["read"].items()}
        table["read"] = {path: some for path, some in left.items() if some}
    return len(ended)


def _holders(table: Any) -> set[int]:
    readers = [who["pid"] for some in table.get("read", {}).values() for who in some]
    return {*readers, *(who["pid"] for who in table.get("write", {}).values())}


def _has_ended(pid: int, written: float) -> bool:
    """Whether the process that was in a table `written` then is no more; another may have its number by now."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written + 1
    except psutil.NoSuchProcess:
        return True


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
