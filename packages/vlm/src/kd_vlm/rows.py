"""Files of records, row by row: a JSON array, JSON lines, parquet. None is ever held whole."""

import codecs
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from kd_vlm.reading import parquet_errors, parse_json

CHUNK = 1 << 23  # bytes read at a time
_DECODER = json.JSONDecoder()
LARGEST_ROW = 1 << 28  # a longer element of an array is taken for broken JSON


def open_rows(path: Path) -> "Rows":
    """The records of `path`, by its suffix: `.json` (one array), `.jsonl` or `.parquet`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of the three, or no valid JSON array.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected conversations (.json, .jsonl or .parquet) at {path}, found none.")
    if path.suffix == ".parquet":
        return ParquetRows(path)
    if path.suffix == ".jsonl":
        return JsonRows(path, _line_spans(path))
    if path.suffix == ".json":
        return JsonRows(path, _array_spans(path))
    raise ValueError(f"{path}: expected a .json array, .jsonl or .parquet file.")


class Rows(Sequence[Any]):
    """Records in file order. Processes may share one: nothing that is read moves a place in an open file."""

    path: Path

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self.row(i) for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows, asked for {at}.")
        return self.row(at % len(self))

    @abstractmethod
    def row(self, at: int) -> Any:
        """Row `at`, from 0. Raises ValueError if that row is no valid JSON."""


class JsonRows(Rows):
    """JSON values at known places of a file, parsed when they are asked for."""

    def __init__(self, path: Path, spans: np.ndarray) -> None:
        """Take the byte where each value begins and ends, (n, 2)."""
        self.path = path
        self.spans = spans

    def __len__(self) -> int:
        return len(self.spans)

    def row(self, at: int) -> Any:
        begin, end = self.spans[at].tolist()
        return parse_json(os.pread(self._file.fileno(), end - begin, begin), "not valid JSON")

    @cached_property
    def _file(self) -> BinaryIO:
        return self.path.open("rb")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "spans": self.spans}


class ParquetRows(Rows):
    """Records of a parquet file. One row group is held in memory, so reading in order is fast."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with parquet_errors(f"{path}: not a parquet file"):
            meta = self._file.metadata
        self.ends = np.cumsum([meta.row_group(i).num_rows for i in range(meta.num_row_groups)])
        self._held: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def row(self, at: int) -> Any:
        group = int(np.searchsorted(self.ends, at, side="right"))
        begin = int(self.ends[group - 1]) if group else 0
        with parquet_errors(f"{self.path}: row {at}"):
            if self._held[0] != group:
                self._held = (group, self._file.read_row_group(group))  # pyarrow reads at places, too
            return self._held[1].slice(at - begin, 1).to_pylist()[0]

    @cached_property
    def _file(self) -> Any:
        from pyarrow.parquet import ParquetFile

        return ParquetFile(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "ends": self.ends, "_held": (-1, None)}


def _line_spans(path: Path) -> np.ndarray:
    spans = []
    at = 0
    with path.open("rb") as file:
        for line in file:
            if not line.isspace():
                spans.append((at, at + len(line)))
            at += len(line)
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def _array_spans(path: Path) -> np.ndarray:
    return np.array(list(_elements(path)), dtype=np.int64).reshape(-1, 2)


def _elements(path: Path) -> Iterator[tuple[int, int]]:
    """The bytes where each element of a JSON array begins and ends, in one pass over the file with bounded memory."""
    window = _Window(path)
    window.expect("[")
    while window.peek() != "]":
        end = _end_of_value(window)
        begin = window.byte
        window.advance(end)
        yield begin, window.byte
        if window.peek() == ",":
            window.expect(",")
            if window.peek() == "]":
                raise window.error("expected another element after the comma")
        elif window.peek() != "]":
            raise window.error(f"expected , or ] after an element, found {window.peek()!r}")
    window.expect("]")
    if window.peek():
        raise window.error("expected nothing after the array")


def _end_of_value(window: "_Window") -> int:
    """The character behind the value that begins at `window.at`; reads on until all of it is in the window."""
    while True:
        try:
            _, end = _DECODER.raw_decode(window.text, window.at)
        except RecursionError:
            raise window.error("values nested too deeply to read") from None
        except ValueError as error:
            if window.ended or len(window.text) - window.at > LARGEST_ROW:
                raise window.error(str(error)) from None
            end = len(window.text)
        if end < len(window.text) or window.ended:
            return end
        window.read()


class _Window:
    """A part of a UTF-8 file as text, and where it lies: `byte` is the place of the character `at`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("rb")
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.byte, self.ended = "", 0, 0, False
        self.ascii = True
        if self.file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            self.byte = len(codecs.BOM_UTF8)
        self.file.seek(self.byte)
        self.read()

    def read(self) -> None:
        """Forget what lies before `at` and read at least as much again as is left."""
        left = self.text[self.at :]
        data = self.file.read(max(CHUNK, len(left)))
        self.ended = not data
        try:
            self.text, self.at = left + self.decoder.decode(data, final=self.ended), 0
        except UnicodeDecodeError as error:
            raise self.error(f"not UTF-8: {error}") from None
        self.ascii = self.text.isascii()
        if self.ended:
            self.file.close()

    def advance(self, to: int) -> None:
        self.byte += to - self.at if self.ascii else len(self.text[self.at : to].encode())
        self.at = to

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.advance(self.at + 1)
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.read()

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise self.error(f"expected {character}, found {self.peek() or 'the end'!r}; is it one array of samples?")
        self.advance(self.at + 1)

    def error(self, message: str) -> ValueError:
        return ValueError(f"{self.path}: not valid JSON near byte {self.byte}: {message}")
