"""Labelled images from files: tar shards, folders of images, parquet tables. Nothing is decoded here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_evalsuite.items import DataError
from kd_evalsuite.reading import parquet_errors

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An encoded image and the number of its class."""

    key: str
    image: bytes
    label: int


def of_shards(shards: Sequence[Path], n_classes: int) -> Iterator[Labelled]:
    """The samples of tar files, in order."""
    from kd_evalsuite.zeroshot.shards import samples

    for shard in shards:
        yield from samples(shard, n_classes)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def of_folders(labelled: Sequence[tuple[Path, int]]) -> Iterator[Labelled]:
    """The images of an ImageFolder; the key is the folder's and the file's name."""
    for file, label in labelled:
        yield Labelled(f"{file.parent.name}/{file.stem}", file.read_bytes(), label)


def parquet_files(folder: Path) -> tuple[Path, ...]:
    """The parquet files of a set: of its validation split where there is one, else of its test split, else all."""
    files = sorted(p for p in folder.rglob("*.parquet") if not p.name.startswith("."))
    for split in ("validation", "val", "test"):
        if chosen := [p for p in files if p.name.startswith(f"{split}-") or p.stem == split]:
            return tuple(chosen)
    return tuple(files)


def of_parquet(files: Sequence[Path], n_classes: int) -> Iterator[Labelled]:
    """The rows of parquet tables with columns `image` (bytes and path) and `label`, a few at a time.

    Raises:
        DataError: If a column is missing, a row has no image, or a label is no class.
    """
    import pyarrow.parquet as pq

    for file in files:
        with parquet_errors(f"{file}: not a readable parquet file", DataError):
            table = pq.ParquetFile(file)
            if missing := {"image", "label"} - set(table.schema_arrow.names):
                found = ", ".join(table.schema_arrow.names)
                raise DataError(f"{file}: expected columns {', '.join(sorted(missing))}; found {found}.")
            number = 0
            for batch in table.iter_batches(batch_size=64, columns=["image", "label"]):
                for row in batch.to_pylist():
                    yield _row(file, number, row, n_classes)
                    number += 1


def _row(file: Path, number: int, row: dict[str, object], n_classes: int) -> Labelled:
    cell, label = row["image"], row["label"]
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise DataError(f"{file}: row {number} has no image.")
    if not isinstance(label, int) or not 0 <= label < n_classes:
        raise DataError(f"{file}: row {number}: expected a class below {n_classes}, got {label!r}.")
    return Labelled(f"{file.stem}/{number}", content, label)
