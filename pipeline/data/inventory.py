"""The files of a folder with their digests. Each is read once; its size and time say whether it changed."""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

from kd_distill.durable import write_whole

MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
PICTURE, EMPTY, CUT, OTHER = "picture", "empty", "cut", "other"
TOGETHER = 64  # files that a process takes at a time
SMALL = 1 << 28  # less than this is read in this process


@dataclass(frozen=True)
class Entry:
    """One file. `form` is what its bytes say: picture, empty, other, cut (of a tar), or the number of a tar's pairs."""

    path: str
    size: int
    mtime_ns: int
    sha256: str
    form: str


Entries = dict[str, Entry]


def walk(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of each file below `folder`, without names that begin with a dot; links to files followed."""
    below = [""]
    while below:
        prefix = below.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(f"{prefix}{entry.name}/")
                elif entry.is_file():  # not what a broken link or a link to a folder is
                    state = entry.stat()
                    yield f"{prefix}{entry.name}", state.st_size, state.st_mtime_ns


def linked_folders(folder: Path) -> list[str]:
    """Folders below `folder` that are links: nothing behind them counts."""
    found = []
    for home, folders, _ in os.walk(folder):
        found += [Path(home, name).relative_to(folder).as_posix() for name in folders if Path(home, name).is_symlink()]
    return sorted(found)


def examine(folder: Path, files: Iterable[tuple[str, int, int]]) -> list[Entry]:
    """Read each file: its digest, and what it is."""
    entries = []
    for path, size, mtime_ns in files:
        file = folder / path
        with file.open("rb") as stream:
            head = stream.read(16)
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        entries.append(Entry(path, size, mtime_ns, digest, _form(file, head)))
    return entries


def _form(file: Path, head: bytes) -> str:
    if not head:
        return EMPTY
    if file.suffix == ".tar":
        return pairs_of(file)
    return PICTURE if head.startswith(MAGIC) else OTHER


def pairs_of(shard: Path) -> str:
    """The number of keys of a shard that have a picture and a caption, from its headers; `cut` if it ends too early."""
    pictures, captions, size = set(), set(), shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                key, _, suffix = name.name.partition(".")
                whole = str(name.with_name(key)) if key else member.name
                if member.offset_data + member.size > size:
                    return CUT
                if f".{suffix.lower()}" in PICTURES:
                    pictures.add(whole)
                elif suffix.lower() == "txt":
                    captions.add(whole)
            end = tar.offset
    except (tarfile.TarError, EOFError):
        return CUT
    with shard.open("rb") as file:
        file.seek(end)
        rest = file.read(1024)
    return str(len(pictures & captions)) if len(rest) >= 512 and not rest.strip(b"\0") else CUT


class Listing:
    """What is known of a folder's files, a JSON line each, added as files are read, so that a kill loses none."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> Entries:
        """The entries; the last line of a path counts. What is no entry, as half a line, is left out and read again."""
        entries: Entries = {}
        if self.file.is_file():
            with self.file.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if entry := _entry(line):
                        entries[entry.path] = entry
        return entries

    def write(self, entries: Entries) -> None:
        """Replace the file."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.file, "".join(_line(entries[path]) for path in sorted(entries)).encode())

    def refresh(
        self,
        folder: Path,
        *,
        workers: int = 1,
        anew: bool = False,
        known: Mapping[str, Entry] | None = None,
        only: str = "",
        on_bytes: Callable[[int, int], None] = lambda done, total: None,
    ) -> Entries:
        """The entries of `folder` as it is.

        Args:
            folder: Which.
            workers: Processes that read.
            anew: Read every file again.
            known: Entries of the same files from elsewhere, by path.
            only: One file, where others of the folder belong to another data set.
            on_bytes: Called with bytes read and bytes to read.
        """
        before = {} if anew else {**(known or {}), **self.read()}
        now = [found for found in walk(folder) if only in ("", found[0])]
        entries, new = {}, []
        for path, size, mtime_ns in now:
            entry = before.get(path)
            if entry and (entry.size, entry.mtime_ns) == (size, mtime_ns):
                entries[path] = entry
            else:
                new.append((path, size, mtime_ns))
        total, done = sum(size for _, size, _ in new), 0
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as notes:
            for found in _examined(folder, new, 1 if total < SMALL else workers):
                entries |= {entry.path: entry for entry in found}
                notes.writelines(map(_line, found))
                notes.flush()
                done += sum(entry.size for entry in found)
                on_bytes(done, total)
        if new or len(entries) != len(before):
            self.write(entries)
        return entries


def _entry(line: str) -> Entry | None:
    try:
        path, size, mtime_ns, sha256, form = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    right = isinstance(path, str) and isinstance(size, int) and isinstance(sha256, str) and isinstance(form, str)
    return Entry(path, size, mtime_ns, sha256, form) if right and line.endswith("\n") else None


def _line(entry: Entry) -> str:
    return json.dumps(astuple(entry)) + "\n"


def _examined(folder: Path, files: list[tuple[str, int, int]], workers: int) -> Iterator[list[Entry]]:
    size = TOGETHER if len(files) > 16 * TOGETHER else 1
    parts = (files[start : start + size] for start in range(0, len(files), size))
    if workers == 1:
        yield from (examine(folder, part) for part in parts)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting = [pool.submit(examine, folder, part) for part in islice(parts, 4 * workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(examine, folder, part) for part in islice(parts, 1)]


def digest_of_all(entries: Entries) -> str:
    """One sha256 over all files: of the lines `<sha256>  <path>`, sorted by path."""
    whole = hashlib.sha256()
    for path in sorted(entries):
        whole.update(f"{entries[path].sha256}  {path}\n".encode())
    return whole.hexdigest()


def of_links(folder: Path, base: Mapping[str, Entry]) -> Entries:
    """What is known of the files that `folder` links to, by their names here."""
    return {path: replace(base[path], path=path) for path, _, _ in walk(folder) if path in base}
