"""Features on disk, shared by pairs, tasks and runs: one shelf for each encoder, tap and way of looking.

A shelf is a folder of `.npy` parts and an index of one line a part: its file, its sha256, the digests of its images in
order. A part is written whole before its line is; a killed process leaves complete parts, and the next goes on. Parts
are verified when a shelf is opened and memory-mapped; a damaged one is left out, and its images are read again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

SCHEMA = "kd-features/1"
ABOUT, INDEX = "about.json", "index.jsonl"
BLOCK = 1024  # rows read at a time

log = logging.getLogger(__name__)


class Shelf:
    """The features of one encoder at one tap, by image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: list[np.ndarray] = []
        self._place: dict[str, tuple[int, int]] = {}
        for line in _lines(folder / INDEX):
            self._open(line)

    def __contains__(self, image: str) -> bool:
        return image in self._place

    def missing(self, images: Sequence[str]) -> set[str]:
        return {i for i in images if i not in self._place}

    def add(self, images: Sequence[str], rows: Float[np.ndarray, "n ..."]) -> None:
        """Write a part and its line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".part-{os.getpid()}"
        with part.open("wb") as stream:
            np.save(stream, np.ascontiguousarray(rows), allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
        sha256 = _digest(part)
        place = self.folder / f"{sha256[:24]}.npy"
        part.replace(place)
        line = {"file": place.name, "sha256": sha256, "ids": list(images)}
        with (self.folder / INDEX).open("ab") as index:
            index.write(b"\n" * _torn(self.folder / INDEX) + json.dumps(line).encode() + b"\n")
        self._open(line, verify=False)

    def blocks(self, images: Sequence[str]) -> Iterator[Float[np.ndarray, "b ..."]]:
        """The rows of these images in this order, `BLOCK` at a time.

        Raises:
            ValueError: If one is missing.
        """
        if missing := self.missing(images):
            raise ValueError(
                f"Expected features of {len(images)} images, {len(missing)} are missing, first {min(missing)[:12]}."
            )
        for start in range(0, len(images), BLOCK):
            places = np.array([self._place[i] for i in images[start : start + BLOCK]])
            out = np.empty((len(places), *self._parts[places[0, 0]].shape[1:]), self._parts[places[0, 0]].dtype)
            for part in np.unique(places[:, 0]):
                here = places[:, 0] == part
                out[here] = self._parts[part][places[here, 1]]
            yield out

    def _open(self, line: dict, *, verify: bool = True) -> None:
        path = self.folder / str(line["file"])
        if verify and (not path.is_file() or _digest(path) != line["sha256"]):
            log.warning("%s is damaged or gone; its %d images are read again.", path, len(line["ids"]))
            return
        self._parts.append(np.load(path, mmap_mode="r", allow_pickle=False))
        for row, image in enumerate(line["ids"]):
            self._place.setdefault(image, (len(self._parts) - 1, row))


class Store:
    """A folder of shelves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shelf(self, model_sha256: str, tap: str, look: str) -> Shelf:
        """The shelf of an encoder (by the digest of its files), at a tap, with its preprocessing."""
        about = {"schema": SCHEMA, "model": model_sha256, "tap": tap, "look": look}
        text = json.dumps(about, sort_keys=True)
        folder = self.folder / hashlib.sha256(text.encode()).hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ABOUT).is_file():
            (folder / ABOUT).write_text(text + "\n")
        return Shelf(folder)


class Decoded:
    """Which pixels an encoded image holds, by the sha256 of its bytes: what was decoded once is known again."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        pairs = [(one.get("bytes"), one.get("pixels")) for one in _lines(file)] if file else []
        self._known = {b: p for b, p in pairs if isinstance(b, str) and isinstance(p, str)}
        self._new: dict[str, str] = {}

    def of(self, data: bytes) -> tuple[str, str | None]:
        """The digest of the bytes, and of the pixels where it is known."""
        digest = hashlib.sha256(data).hexdigest()
        return digest, self._known.get(digest)

    def learn(self, data_sha256: str, pixels_sha256: str) -> None:
        if data_sha256 not in self._known:
            self._known[data_sha256] = self._new[data_sha256] = pixels_sha256

    def save(self) -> None:
        """Append what was learned."""
        if self._file and self._new:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps({"bytes": b, "pixels": p}) + "\n" for b, p in self._new.items())
            with self._file.open("ab") as out:
                out.write(b"\n" * _torn(self._file) + lines.encode())
            self._new = {}


def _lines(file: Path) -> Iterator[dict]:
    """The whole lines of a file of JSON; what a killed process left of a line is skipped."""
    if file.is_file():
        for line in file.read_bytes().split(b"\n"):
            try:
                found = json.loads(line) if line else None
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield found


def _torn(file: Path) -> bool:
    """Whether a file ends within a line."""
    if not file.is_file() or not file.stat().st_size:
        return False
    with file.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
