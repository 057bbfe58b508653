"""Image-text datasets of the Hugging Face Hub, through the library `datasets` (`pip install kd-distill[hub]`)."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kd_distill.index import FileState, Row, open_index
from kd_distill.ledger import BadSampleError, Cause, Entry
from kd_distill.sources import IndexedPairs
from kd_distill.tables import row_or_entry


class PairHub(IndexedPairs):
    """The rows of one split. The library downloads it once and maps it into memory; no code of the dataset is run.

    Args:
        name: Of the dataset, `owner/name`, or a folder that the library reads.
        split: Of the dataset.
        image: Name of the column of images.
        caption: Name of the column of captions.
        home: Where the index goes.

    Raises:
        ModuleNotFoundError: If `datasets` is not installed.
        ValueError: If a column is missing.
    """

    def __init__(self, name: str, *, split: str, image: str, caption: str, home: Path) -> None:
        try:
            import datasets
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{name}: expected the library `datasets`; install it with `pip install kd-distill[hub]`."
            ) from None
        whole = datasets.load_dataset(name, split=split)
        if missing := {image, caption} - set(whole.column_names):
            raise ValueError(f"{name}: expected the columns {image} and {caption}, lacks {sorted(missing)}.")
        self._rows, self._image = whole.cast_column(image, datasets.Image(decode=False)), image
        index = open_index(
            home, [_state(name, whole)], ["hub", split, image, caption], lambda: _rows_of(name, whole, caption)
        )
        super().__init__(name, index)

    def image(self, index: int) -> bytes:
        value = self._rows[int(self.index.places[index]["start"])][self._image]
        if not value or not value.get("bytes"):
            raise BadSampleError(Cause.NO_IMAGE, "the row holds no bytes")
        return bytes(value["bytes"])

    def file(self, index: int) -> str:
        return self.name


def _state(name: str, whole: Any) -> FileState:
    """The dataset's fingerprint in place of a file's state."""
    digest = hashlib.sha256(json.dumps([whole._fingerprint, len(whole)]).encode()).hexdigest()
    return FileState(f"{name} {digest[:16]}", len(whole), 0)


def _rows_of(name: str, whole: Any, caption: str) -> Iterator[Row | Entry]:
    for row, text in enumerate(whole.select_columns([caption])):
        value = text[caption]
        yield row_or_entry(0, row, name, None, str(row), value.encode() if isinstance(value, str) else None)
