"""What a benchmark asks: an item with its pictures, its gold answers and its options; and the prompt built from it."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_evalsuite.store import Stored

IMAGE_MARK = "<image>\n"  # how a prompt says where a picture stands


class DataError(ValueError):
    """Benchmark files that are missing, incomplete or of another form than expected."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image: its bytes, or the file that holds them. Neither, when only its presence was read."""

    data: bytes | Stored | None = None
    path: Path | None = None

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            DataError: If the file is missing, or the item was read without its pictures.
        """
        if self.data is not None:
            return self.data if isinstance(self.data, bytes) else self.data.read()
        if self.path is None:
            raise DataError("This item was read without its pictures; read it again with pictures=True.")
        if not self.path.is_file():
            raise DataError(f"Expected an image at {self.path}, found none.")
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    Attributes:
        id: Unique within the task and independent of the order of the file.
        question: As the dataset has it.
        gold: The accepted answers; for a choice among options one capital letter.
        choices: The option texts, the first being A; empty where the answer is open.
        cluster: Items of a cluster are resampled together; empty where the cluster is the picture.
        pictures: In the order of the prompt; empty for a question about text alone.
        category: The dataset's own subdivision, empty where it has none.
        fields: What else a prompt or a scorer needs, named as in the dataset.
        row: Its position in the whole data set, where the task is only a part of that.
    """

    id: str
    question: str
    gold: tuple[str, ...]
    choices: tuple[str, ...] = ()
    cluster: str = ""
    pictures: tuple[Picture, ...] = ()
    category: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is shown: pictures first, then the text (without image marks)."""

    text: str
    pictures: tuple[Picture, ...] = ()

    @property
    def marked(self) -> str:
        """The text with one image mark a picture in front, as LLaVA-style suites write it."""
        return IMAGE_MARK * len(self.pictures) + self.text

    def blind(self) -> "Prompt":
        """The same question without its pictures."""
        return Prompt(self.text)


def picture_of(value: Any, folder: Path) -> Picture | None:
    """The picture in a cell: `{"bytes", "path"}`, bytes, a path inside `folder`, base64 text, or None.

    Raises:
        DataError: If a path leads out of `folder`, or the cell is none of these.
    """
    if value is None or value == "":
        return None
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        if data is None and path and "bytes" in value:
            return Picture(path=_inside(folder, str(path)))
        return Picture(data=data)
    if isinstance(value, bytes):
        return Picture(data=value)
    if isinstance(value, str):
        coded = len(value) > 256 or (len(value) > 64 and "." not in value)  # names of files have a suffix
        return Picture(data=_base64(value)) if coded else Picture(path=_inside(folder, value))
    raise DataError(f"Expected an image as bytes, struct, path or base64, got {type(value).__name__}.")


def base_of(path: Path) -> Path:
    """The folder of a benchmark that is given as a folder, or as one file of it."""
    return path.parent if path.is_file() else path


def _inside(folder: Path, name: str) -> Path:
    root = base_of(folder).resolve()
    for place in (root / name, root / "images" / name):
        if not place.resolve().is_relative_to(root):
            raise DataError(f"Expected image paths inside {folder}, got {name!r}.")
        if place.is_file():
            return place
    return root / name


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise DataError(f"Expected an image path or base64, got {text[:40]!r}…") from None


def content_id(*parts: Any) -> str:
    """A short id that depends on the content alone, for datasets that have none."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:12]


def distinct(ids: list[str]) -> list[str]:
    """The ids with `-2`, `-3` … added to repeated ones."""
    seen: dict[str, int] = {}
    out = []
    for one in ids:
        seen[one] = seen.get(one, 0) + 1
        out.append(one if seen[one] == 1 else f"{one}-{seen[one]}")
    return out
