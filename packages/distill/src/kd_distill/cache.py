"""The cache of a teacher on disk: its embeddings of every view of every pair, in files of a fixed number of rows.

A folder holds `cache.json`, which says what the embeddings are of and names each file with its sha256, and float16
arrays: `image-<view>-<block>.npy` (rows, d), `text-<block>.npy` (rows, d) and, where they are wanted,
`patches-<view>-<block>.npy` (rows, p, w). Block k of `rows` pairs starts at pair k * rows. `building.py` writes it.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from kd_distill.batch import Targets, TeacherInfo
from kd_distill.layers import PatchLayer
from kd_distill.precision import Precision
from kd_distill.reading import FileError, parse_json
from kd_distill.tracking import IntegrityError

MANIFEST = "cache.json"
OPEN_FILES = 1024  # mapped at once; Linux allows a process 65530 maps


class CacheInfo(BaseModel):
    """What the embeddings are of: a cache is used only where all of it fits.

    Attributes:
        format: Of the folder, and of the code that wrote it.
        teacher: Its reference (contract/README.md, "References"), whose sha256 covers weights and configuration.
        preprocessing: Size, mean, std, interpolation and resize mode of the teacher's images; None: computed elsewhere.
        tokenizer: The teacher's, as `Tokenize.identity`; None: computed elsewhere, or no captions.
        precision: Of the teacher's towers.
        width: Of its embeddings.
        scale: What it multiplies its cosines with.
        bias: What it adds to them.
        text: Whether captions were embedded.
        grid: Rows and columns of the patch tokens; None where they are not kept.
        patch_width: Of the patch tokens.
        patch_layer: Where they were read, see `towers.image_features`.
        data_digest: Of the pairs.
        pairs: Their number.
        views: Crops of each image.
        crop_area: Smallest share of an image that a crop covers.
        crop_seed: Of the crops.
        rows: Pairs in one file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["kd-cache/3"] = "kd-cache/3"
    teacher: dict[str, str]
    preprocessing: dict[str, Any] | None
    tokenizer: str | None
    precision: Precision
    width: int
    scale: float
    bias: float
    text: bool
    grid: tuple[int, int] | None
    patch_width: int | None
    patch_layer: PatchLayer | None
    data_digest: str
    pairs: int
    views: int
    crop_area: float
    crop_seed: int
    rows: int

    @property
    def digest(self) -> str:
        """A sha256 of all fields."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def refuse_other(self, expected: Mapping[str, Any]) -> None:
        """Raise ValueError, naming the fields that differ, unless the cache has the expected values."""
        own, other = _comparable(self.model_dump(mode="json")), _comparable(json.loads(json.dumps(dict(expected))))
        if different := [f"{k}: cache {own[k]!r}, expected {v!r}" for k, v in other.items() if own[k] != v]:
            raise ValueError(
                f"The cache of {self.teacher['name']} is of something else ({'; '.join(different)}). "
                "Change the parameters back, or make it anew with `distill cache --replace`."
            )


def _comparable(fields: dict[str, Any]) -> dict[str, Any]:
    """Without the kind of the reference: a plain folder does not know whether it is a teacher."""
    if "teacher" not in fields:
        return fields
    return fields | {"teacher": {k: v for k, v in fields["teacher"].items() if k != "kind"}}


@dataclass(frozen=True)
class Block:
    """The unit of work and of storage: the rows `start` to `stop` in one view, or their captions if `view` is None."""

    view: int | None
    number: int
    start: int
    stop: int

    def file(self, kind: str) -> str:
        """The name of its file of `image`, `text` or `patches`."""
        view = "" if self.view is None else f"-{self.view:03d}"
        return f"{kind}{view}-{self.number:06d}.npy"


def blocks(info: CacheInfo) -> Iterator[Block]:
    """All blocks of a cache: those of captions first, since they are quickest, then view by view."""
    for view in (*((None,) if info.text else ()), *range(info.views)):
        for number, start in enumerate(range(0, info.pairs, info.rows)):
            yield Block(view, number, start, min(start + info.rows, info.pairs))


def files_of(info: CacheInfo, block: Block) -> dict[str, tuple[int, ...]]:
    """The files of a block, and the shape of the array in each."""
    rows = block.stop - block.start
    if block.view is None:
        return {block.file("text"): (rows, info.width)}
    shapes: dict[str, tuple[int, ...]] = {block.file("image"): (rows, info.width)}
    if info.grid is not None and info.patch_width is not None:
        shapes[block.file("patches")] = (rows, info.grid[0] * info.grid[1], info.patch_width)
    return shapes


def names(info: CacheInfo) -> list[str]:
    """All files of a cache but the manifest."""
    return [name for block in blocks(info) for name in files_of(info, block)]


def manifest(info: CacheInfo, digests: Mapping[str, str]) -> str:
    """The content of `cache.json`: the same bytes for the same cache, its own sha256 in it."""
    whole: dict[str, Any] = info.model_dump(mode="json") | {"files": dict(sorted(digests.items()))}
    own = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return json.dumps(whole | {"sha256": own}, indent=1) + "\n"


def read_manifest(folder: Path) -> tuple[CacheInfo, dict[str, str]]:
    """What the cache in `folder` is of, and the sha256 of its files.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If an older version of this package wrote it.
        IntegrityError: If it isn't as it was written.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"Expected a teacher cache in {folder}, found none; `distill cache` writes it.")
    try:
        text = file.read_bytes().decode()
        whole = parse_json(text, str(file))
        if whole.get("schema") == "kd-cache/1":
            raise ValueError(f"{folder} has the older format kd-cache/1; make it anew with `distill cache --replace`.")
        digests = whole.pop("files")
        whole.pop("sha256")
        info = CacheInfo.model_validate(whole)
        intact = manifest(info, digests) == text
    except (UnicodeDecodeError, FileError, ValidationError, AttributeError, KeyError, TypeError, OverflowError):
        intact = False
    if not intact:
        raise IntegrityError(f"{file} is not as it was written; make the cache anew with `distill cache --replace`.")
    return info, digests


class TeacherCache:
    """The embeddings in a folder, mapped into memory. Each file is verified by its sha256 before its first use.

    Raises:
        FileNotFoundError: If there is no cache.
        IntegrityError: If it isn't as it was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info, self._digests = read_manifest(folder)
        self._verified: set[str] = set()
        self._array = functools.lru_cache(maxsize=OPEN_FILES)(self._open)

    @property
    def teacher(self) -> TeacherInfo:
        """What a student's loss must know of the teacher."""
        info = self.info
        return TeacherInfo(
            info.teacher["name"],
            info.width,
            info.scale,
            info.bias,
            info.grid,
            info.patch_width,
            info.patch_layer,
        )

    @property
    def has_text(self) -> bool:
        """Whether it holds embeddings of captions."""
        return self.info.text

    def rows(self, indices: np.ndarray, views: int | np.ndarray) -> Targets:
        """The teacher's embeddings of pairs.

        Args:
            indices: Of the pairs.
            views: Of all of them, or of each.

        Raises:
            IntegrityError: If a file is missing or isn't as it was written.
        """
        views = np.broadcast_to(views, len(indices))
        text = self._gather("text", indices, None) if self.info.text else None
        patches = self._gather("patches", indices, views) if self.info.grid is not None else None
        return Targets(
            _unit(self._gather("image", indices, views)),
            None if text is None else _unit(text),
            None if patches is None else patches.float(),
        )

    def verify(self) -> int:
        """Compare every file with its sha256; returns the number of files. Raises IntegrityError as `rows`."""
        for name in self._digests:
            self._check(name)
        return len(self._digests)

    def _gather(self, kind: str, indices: np.ndarray, views: np.ndarray | None) -> Tensor:
        numbers = indices // self.info.rows
        places = numbers if views is None else numbers + views * (self.info.pairs + 1)
        out: np.ndarray | None = None
        for place in np.unique(places):
            at = np.flatnonzero(places == place)
            view = None if views is None else int(views[at[0]])
            array = self._array(Block(view, int(numbers[at[0]]), 0, 0).file(kind))
            if out is None:
                out = np.empty((len(indices), *array.shape[1:]), np.float16)
            out[at] = array[indices[at] % self.info.rows]
        if out is None:
            raise ValueError("Expected the index of at least one pair, got none.")
        return torch.from_numpy(out)

    def _open(self, name: str) -> np.ndarray:
        if name not in self._verified:
            self._check(name)
            self._verified.add(name)
        return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)

    def _check(self, name: str) -> None:
        file = self.folder / name
        found = sha256_of(file) if file.is_file() else "no such file"
        if found != self._digests.get(name):
            raise IntegrityError(
                f"{file}: expected sha256 {self._digests.get(name)}, got {found}. "
                "Fetch it again, or make the cache anew with `distill cache --replace`."
            )


def sha256_of(file: Path) -> str:
    """Of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=-1)
