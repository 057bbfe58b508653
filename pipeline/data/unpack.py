"""Archives of pictures: unpacked in their folder and nowhere else, file by file, so that a killed unpacking goes on."""

import gzip
import io
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pipeline.data.errors import IntegrityError, StoppedError

BLOCK = 1 << 20
RATIO, FLOOR = 10, 1 << 26  # pictures are compressed already; an archive that grows more than this is none of pictures


@dataclass(frozen=True)
class Unpacked:
    """What an archive held."""

    files: int
    bytes: int


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archives: Sequence[Path],
    into: Path,
    *,
    on_file: Callable[[int], None] = lambda size: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Unpacked:
    """Unpack a zip, a tar, or a tar cut into parts (in their order). Files that are there in full are left as they are.

    Args:
        archives: The archive, or its parts.
        into: The folder; no file is written outside.
        on_file: Called with the size of each file that is there.
        stopped: Asked at each file.

    Raises:
        IntegrityError: If the archive is damaged, or names a file outside, a link, a device, a file twice, or more
            bytes than pictures of its size hold.
    """
    most = FLOOR + RATIO * sum(archive.stat().st_size for archive in archives)
    members = _zip_members(archives) if zipfile.is_zipfile(archives[0]) else _tar_members(archives)
    home, parents = into.resolve(), set[Path]()
    names: set[str] = set()
    total = 0
    try:
        for member in members:
            if stopped():
                raise StoppedError
            target = _place(home, member.name, parents)
            total += member.size
            if total > most:
                raise IntegrityError(f"{archives[0]}: holds more than {most} bytes; not an archive of pictures.")
            if member.name in names:
                raise IntegrityError(f"{archives[0]}: names {member.name} twice.")
            names.add(member.name)
            if not (target.is_file() and target.stat().st_size == member.size):
                _write(member, target)
            on_file(member.size)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise IntegrityError(f"{archives[0]}: damaged after {len(names)} files: {error}") from None
    return Unpacked(len(names), total)


def _place(home: Path, name: str, parents: set[Path]) -> Path:
    """The path of a member below `home`; its folder is made."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise IntegrityError(f"An archive names {name!r}, which is not below its folder.")
    target = home / path
    if target.parent not in parents:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(home):
            raise IntegrityError(f"An archive names {name!r}, and a link there leads out of {home}.")
        parents.add(target.parent)
    if target.is_symlink():
        raise IntegrityError(f"An archive names {name!r}, and {target} is a link; remove it.")
    return target


def _write(member: _Member, target: Path) -> None:
    """Write beside and rename; a file that has its name is whole."""
    part = target.with_name(f".{target.name}.part")
    try:
        with member.open() as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, BLOCK)
            size = file.tell()
        if size != member.size:
            raise IntegrityError(f"{member.name}: expected {member.size} bytes, got {size}.")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _zip_members(archives: Sequence[Path]) -> Iterator[_Member]:
    if len(archives) > 1:
        raise IntegrityError(f"{archives[0]}: a zip in parts cannot be unpacked; join them first.")
    with zipfile.ZipFile(archives[0]) as whole:
        for info in whole.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise IntegrityError(f"{archives[0]}: {info.filename} is a link or a device.")
            if info.flag_bits & 1:
                raise IntegrityError(f"{archives[0]}: {info.filename} is encrypted.")
            yield _Member(info.filename, info.file_size, lambda info=info: whole.open(info))  # type: ignore[misc]


def _tar_members(archives: Sequence[Path]) -> Iterator[_Member]:
    """Of a tar or tar.gz. tarfile takes any end for the end, so the end mark is looked for here."""
    with archives[0].open("rb") as first:
        packed = first.read(2) == b"\x1f\x8b"
    joined = io.BufferedReader(Joined(archives), BLOCK)
    stream: Any = Watched(gzip.GzipFile(fileobj=joined) if packed else joined)
    with tarfile.open(fileobj=stream, mode="r|") as whole:
        for info in whole:
            if info.isdir():
                continue
            if not info.isfile():
                raise IntegrityError(f"{archives[0]}: {info.name} is a link or a device.")
            yield _Member(info.name, info.size, lambda info=info: _opened(whole, info))  # type: ignore[misc]
    while stream.read(BLOCK):
        pass  # to the end, where gzip compares its checksum
    if stream.tail.strip(b"\0") or not stream.tail:
        raise tarfile.ReadError("it ends without an end mark; a part is missing or cut")


def _opened(whole: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    found = whole.extractfile(info)
    assert found is not None  # noqa: S101  of a regular file there is one
    return found


class Watched:
    """A stream that remembers its last block."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.tail = stream, b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.tail = (self.tail + data)[-tarfile.BLOCKSIZE :]
        return bytes(data)


class Joined(io.RawIOBase):
    """Files one after the other as one stream, without writing them as one."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._rest = list(files)
        self._open: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._open is None:
                if not self._rest:
                    return 0
                self._open = self._rest.pop(0).open("rb")
            if data := self._open.read(len(buffer)):
                buffer[: len(data)] = data
                return len(data)
            self._open.close()
            self._open = None
