"""The index of a set of pairs: where each image stands and what its caption is, built once, then memory-mapped.

A folder named after the files that it is of (names, sizes, modification times or versions), complete from the moment
it has that name:

- `place.npy`: (file, start, size) of each image; what `start` means is the format's affair
- `key.bin` and `key.npy`, `caption.bin` and `caption.npy`: bytes of all, and where each ends
- `ledger.jsonl`: pairs of the files that are not in the index, later also those whose image could not be read
- `index.json`: number of pairs, and the digest of the whole
"""

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_distill.durable import sync_folder
from kd_distill.ledger import Entry, append
from kd_distill.reading import read_array, read_as

SCHEMA = "kd-index/1"
PLACE = np.dtype([("file", "<i4"), ("start", "<i8"), ("size", "<i8")])
DESCRIPTION, LEDGER = "index.json", "ledger.jsonl"


@dataclass(frozen=True)
class Row:
    """One usable pair: a file's number, where in it the image stands, key and checked caption."""

    file: int
    start: int
    size: int
    key: str
    caption: str


class Ragged:
    """Rows of different lengths, one after the other in `<stem>.bin`; `<stem>.npy` holds where each ends."""

    def __init__(self, stem: Path, dtype: type = np.uint8) -> None:
        self._ends, self._stem = read_array(stem.with_suffix(".npy")), stem
        values = stem.with_suffix(".bin")
        n_values, rest = divmod(values.stat().st_size, np.dtype(dtype).itemsize)
        if self._ends.dtype != np.int64 or self._ends.ndim != 1 or rest or not self._fit(n_values):
            raise ValueError(f"{stem}.npy does not fit {stem}.bin; remove the folder {stem.parent}, it is built again.")
        # an empty file cannot be mapped
        self._values = np.memmap(values, dtype, "r") if n_values else np.empty(0, dtype)

    def _fit(self, n_values: int) -> bool:
        """Whether rows end one behind the other, and the last with the values."""
        ends = self._ends
        if not len(ends):
            return n_values == 0
        return bool(ends[0] >= 0 and ends[-1] == n_values and np.all(ends[1:] >= ends[:-1]))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> np.ndarray:
        start = self._ends[i - 1] if i else 0
        return self._values[start : self._ends[i]]

    def text(self, i: int) -> str:
        """Row i of UTF-8 bytes."""
        try:
            return self[i].tobytes().decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self._stem}.bin: row {i} is not what was written: {error}; remove the folder."
            ) from None


class RaggedWriter:
    """Writes what `Ragged` reads, row by row."""

    def __init__(self, stem: Path) -> None:
        self._stem, self._ends, self._end = stem, array("q"), 0
        self._values = stem.with_suffix(".bin").open("wb")

    def add(self, values: bytes, count: int | None = None) -> None:
        """One row; `count` is its number of elements, where they are not bytes."""
        self._values.write(values)
        self._end += len(values) if count is None else count
        self._ends.append(self._end)

    def close(self) -> None:
        self._values.flush()
        os.fsync(self._values.fileno())
        self._values.close()
        np.save(self._stem.with_suffix(".npy"), np.frombuffer(self._ends, np.int64))


class Description(TypedDict):
    """What `index.json` says."""

    schema: Literal["kd-index/1"]
    pairs: int
    digest: str


class Index:
    """An index that is there; `build` makes it."""

    def __init__(self, folder: Path) -> None:
        description = read_as(Description, folder / DESCRIPTION)
        self.folder, self.digest, self.pairs = folder, description["digest"], description["pairs"]
        self.places = read_array(folder / "place.npy")
        self.keys, self.captions = Ragged(folder / "key"), Ragged(folder / "caption")
        lengths = {len(self.keys), len(self.captions), self.pairs}
        if self.places.dtype != PLACE or {(n,) for n in lengths} != {self.places.shape}:
            raise ValueError(f"{folder}: parts of different lengths; remove the folder, it is built again.")


@dataclass(frozen=True)
class FileState:
    """A file as its index knew it."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class RemoteState:
    """A file behind a URL as its index knew it; `version` is what the storage tells of its content."""

    name: str
    size: int
    version: str


def states(files: Sequence[Path], root: Path) -> list[FileState]:
    """Name (below `root`), size and modification time of each file."""
    return [FileState(f.relative_to(root).as_posix(), (status := f.stat()).st_size, status.st_mtime_ns) for f in files]


def open_index(
    home: Path,
    files: Sequence[FileState] | Sequence[RemoteState],
    options: object,
    rows: Callable[[], Iterable[Row | Entry]],
) -> Index:
    """The index of `files` below `home`; built from `rows` where there is none of files in this state.

    Args:
        home: Folder of the indexes of one set of files; of its older states none is kept.
        files: What the index is of.
        options: What else it depends on (names of columns, ...), as JSON can hold it.
        rows: Reads the files: usable pairs in storage order, and ledger entries of the others.
    """
    from filelock import FileLock

    kind = _digest([SCHEMA, options])[:8]
    folder = home / f"{kind}-{_digest([asdict(file) for file in files])[:16]}"
    if not (folder / DESCRIPTION).is_file():
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{home}: the index cannot be written ({error}); name a folder in data.index.") from None
        with FileLock(home / "lock"):  # ranks that start together build one
            if not (folder / DESCRIPTION).is_file():
                for older in home.glob(f"{kind}-*"):
                    shutil.rmtree(older, ignore_errors=True)
                _build(folder, files, rows())
    return Index(folder)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _build(folder: Path, files: Sequence[FileState] | Sequence[RemoteState], rows: Iterable[Row | Entry]) -> None:
    part = folder.with_suffix(".part")
    part.mkdir()
    digest = hashlib.sha256("".join(f"{f.name} {f.size}\n" for f in files).encode())
    keys, captions = RaggedWriter(part / "key"), RaggedWriter(part / "caption")
    columns = tuple(array("q") for _ in PLACE.names or ())
    for row in rows:
        if isinstance(row, Entry):
            append(part / LEDGER, [row])
            continue
        key, caption = row.key.encode(), row.caption.encode()
        digest.update(b"%d %d %d %d %d\n" % (row.file, row.start, row.size, len(key), len(caption)) + key + caption)
        keys.add(key)
        captions.add(caption)
        for column, value in zip(columns, (row.file, row.start, row.size), strict=True):
            column.append(value)
    keys.close()
    captions.close()
    places = np.empty(len(columns[0]), PLACE)
    for name, column in zip(PLACE.names or (), columns, strict=True):
        places[name] = np.frombuffer(column, np.int64)
    np.save(part / "place.npy", places)
    description = {"schema": SCHEMA, "pairs": len(places), "digest": digest.hexdigest()}
    (part / DESCRIPTION).write_text(json.dumps(description) + "\n")
    sync_folder(part)
    part.rename(folder)
