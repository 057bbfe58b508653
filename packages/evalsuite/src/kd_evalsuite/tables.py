"""Rows of a benchmark folder in the forms in which the public datasets come: parquet, jsonl, json, tsv, csv."""

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

from kd_evalsuite.items import DataError
from kd_evalsuite.reading import parquet_errors
from kd_evalsuite.store import Store

Row = dict[str, Any]
POSITION = "position in the data set"  # what `read_rows` adds to a row: how many stood before it, those not kept too
SPLITS = ("train", "validation", "val", "dev", "testmini", "testdev", "test")


def read_rows(
    folder: Path,
    *,
    split: str = "test",
    required: Sequence[str] = (),
    rename: dict[str, str] | None = None,
    pictures: bool = True,
    below: str = "",
    keep: Callable[[Row], bool] = lambda row: True,
) -> list[Row]:
    """All rows of the split, in the order of the sorted files, each with its position (`POSITION`).

    Args:
        folder: The benchmark's folder; files may lie in subfolders, as on the Hub.
        split: Where files are named after splits (`test-00000-of-00001.parquet`), the one to take.
        required: Columns that must be there (after renaming).
        rename: Other public spellings of a column, `{theirs: ours}`; ours wins where both stand.
        pictures: Whether to read image bytes; without, an image cell of a parquet file only says that it is there.
        below: Take only files whose folder's name contains this.
        keep: Which rows to take; others are not held, not even for a moment all together.

    Raises:
        DataError: If no file is found, or a column is missing; the message lists what is there.
    """
    files = _files(folder, split, below)
    rows: list[Row] = []
    store = Store()
    numbers = count()
    for file in files:
        if file.suffix == ".parquet":
            found = _parquet(file, pictures, keep, store, numbers)
        else:
            found = [
                {**row, POSITION: number}
                for row, number in zip(READERS[file.suffix](file, pictures), numbers, strict=False)
            ]
        for row in found:
            for theirs, ours in (rename or {}).items():
                if ours not in row and theirs in row:
                    row[ours] = row[theirs]
        _require(file, found, required)
        rows.extend(row for row in found if keep(row))
    if not rows:
        raise DataError(f"Expected rows in {folder}, found none.")
    return rows


def data_files(folder: Path) -> list[Path]:
    """Every file of a benchmark, sorted; of a single file that one."""
    if folder.is_file():
        return [folder]
    found = (p for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def data_digest(folder: Path) -> str:
    """The sha256 over names and contents of all files of a benchmark."""
    whole = hashlib.sha256()
    for file in data_files(folder):
        state, name = file.stat(), file.name if file == folder else file.relative_to(folder)
        whole.update(f"{_file_digest(file, state.st_size, state.st_mtime_ns)}  {name}\n".encode())
    return whole.hexdigest()


@lru_cache(maxsize=200_000)
def _file_digest(file: Path, size: int, mtime_ns: int) -> str:
    """Of one file; in one process a file that has not changed is read for it once."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path, split: str, below: str) -> list[Path]:
    if not folder.exists():
        raise DataError(f"Expected a benchmark folder at {folder}, found none.")
    if folder.is_file() and folder.suffix in READERS:
        return [folder]
    everything = [p for p in data_files(folder) if below in p.parent.name]
    for suffix in READERS:
        files = [p for p in everything if p.suffix == suffix]
        if chosen := [p for p in files if _split_of(p) == split] or [p for p in files if _split_of(p) == ""]:
            return chosen
    where = f"{folder}/*{below}*" if below else str(folder)
    names = ", ".join(p.name for p in data_files(folder)[:8]) or "nothing"
    raise DataError(f"Expected {' or '.join(READERS)} files of split {split!r} in {where}, found {names}.")


def _split_of(file: Path) -> str:
    head = file.name.split("-")[0].split(".")[0]
    return head if head in SPLITS and ("-of-" in file.name or file.stem == head) else ""


def _require(file: Path, rows: Sequence[Row], required: Sequence[str]) -> None:
    for number, row in enumerate(rows, start=1):
        if missing := [c for c in required if c not in row]:
            at = f"row {number}: " if number > 1 else ""
            there = ", ".join(str(column) for column in row if column != POSITION)
            raise DataError(f"{file}: {at}expected columns {', '.join(missing)}; found {there}.")
        if not row.keys() - {None} == row.keys():
            raise DataError(f"{file}: row {number} has more cells than the table has columns.")


def _parquet(
    file: Path,
    pictures: bool,
    keep: Callable[[Row], bool] = lambda row: True,
    store: Store | None = None,
    numbers: Iterator[int] | None = None,
) -> list[Row]:
    import pyarrow.parquet as pq

    with parquet_errors(f"{file}: not a readable parquet file", DataError):
        table = pq.ParquetFile(file, pre_buffer=False)
        columns = [c for f in table.schema_arrow for c in _leaves(f, pictures)]
        rows: list[Row] = []
        store = store or Store()
        for batch in table.iter_batches(batch_size=32 if pictures else 4096, columns=columns):
            every = batch.to_pylist()
            for row, number in zip(every, numbers or (), strict=False):
                row[POSITION] = number
            found = [row for row in every if keep(row)]
            rows.extend(_held_once(found, store) if pictures else found)
    return rows


def _held_once(rows: list[Row], store: Store) -> list[Row]:
    """The rows with their pictures in the store, in cells and in lists of cells."""
    for row in rows:
        for value in row.values():
            for cell in value if isinstance(value, list) else [value]:
                if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
                    cell["bytes"] = store.keep(cell["bytes"])
    return rows


def _leaves(field: Any, pictures: bool) -> list[str]:
    """The parquet columns to read of one field: of an image without its picture, the path alone."""
    names = {f.name for f in field.type} if str(field.type).startswith("struct") else set()
    if pictures or names != {"bytes", "path"}:
        return [field.name]
    return [f"{field.name}.path"]


def _jsonl(file: Path, pictures: bool) -> list[Row]:
    try:
        rows = [json.loads(line) for line in utf8(file).split("\n") if line.strip()]
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # also of a number of thousands of digits
        raise DataError(f"{file}: not valid JSON lines: {error}") from None
    if strange := [row for row in rows if not isinstance(row, dict)]:
        raise DataError(f"{file}: expected an object a line, got {str(strange[0])[:80]}.")
    return rows


def _json(file: Path, pictures: bool) -> list[Row]:
    """A list of rows, alone or under `data` or `questions`; or a mapping from id to row (then column `id`)."""
    try:
        data = json.loads(utf8(file))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not valid JSON: {error}") from None
    if isinstance(data, dict):
        data = next((data[name] for name in ("data", "questions") if isinstance(data.get(name), list)), data)
    if isinstance(data, dict) and not all(isinstance(row, dict) for row in data.values()):
        raise DataError(f"{file}: expected a list of objects, or a mapping from ids to objects.")
    rows = [{"id": key, **row} for key, row in data.items()] if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: expected a list of objects, or a mapping from ids to objects.")
    return list(rows)


def _separated(delimiter: str, file: Path, pictures: bool) -> list[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = [dict(row) for row in csv.DictReader(stream, delimiter=delimiter)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a readable table: {error}") from None
    return _shared_pictures(rows)


def _shared_pictures(rows: list[Row]) -> list[Row]:
    """VLMEvalKit writes a picture once and puts the `index` of that row in place of its copies."""
    given = {row["index"]: row["image"] for row in rows if len(row.get("image") or "") > 64 and "index" in row}
    for row in rows:
        if given and (row.get("image") or "") in given:
            row["image"] = given[row["image"]]
    return rows


READERS: dict[str, Callable[[Path, bool], list[Row]]] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json,
    ".tsv": partial(_separated, "\t"),
    ".csv": partial(_separated, ","),
}


def utf8(file: Path) -> str:
    """The text of a file.

    Raises:
        DataError: If it is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: expected UTF-8: {error}") from None


def present(value: Any) -> bool:
    """Whether a cell holds something; datasets write nothing as null, an empty text or the word nan."""
    return value is not None and str(value).strip() not in ("", "nan")


def texts(values: Iterable[Any]) -> tuple[str, ...]:
    """The cells as text."""
    return tuple(str(v) for v in values)
