"""Image-text pairs in tables: CSV or TSV with paths of image files, and parquet as Hugging Face datasets have it."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from kd_distill.captions import checked
from kd_distill.index import Row, open_index, states
from kd_distill.ledger import BadSampleError, Cause, Entry
from kd_distill.reading import parquet_errors
from kd_distill.sources import IndexedPairs

if TYPE_CHECKING:
    import pyarrow as pa

KEPT_BYTES = 1 << 30  # of row groups of parquet


def inside(root: Path, name: str) -> Path:
    """The file `name` below `root`, with all links followed.

    Raises:
        BadSampleError: If it stands elsewhere, or there is no such file.
    """
    home = root.resolve()
    try:
        path = (home / name).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a NUL byte
        raise BadSampleError(Cause.UNSAFE, f"{name!r}: {error}") from None
    if PurePosixPath(name).is_absolute() or not path.is_relative_to(home):
        raise BadSampleError(Cause.UNSAFE, f"{name!r} is not below {root}")
    try:
        there = path.is_file()
    except OSError as error:  # a name that is too long
        raise BadSampleError(Cause.MISSING, f"{name[:80]!r} below {root}: {error.strerror}") from None
    if not there:
        raise BadSampleError(Cause.MISSING, f"{name!r} below {root}")
    return path


def row_or_entry(
    number: int, start: int, file: str, name: bytes | None, key: str, caption: bytes | None
) -> Row | Entry:
    """The pair of one row, or why it is none. `name` is the image's path, None where the image is in the table."""
    try:
        if name is not None:
            text = name.decode("utf-8", errors="replace")
            if not text.strip():
                raise BadSampleError(Cause.NO_IMAGE, "no path")
            path = PurePosixPath(text)
            if path.is_absolute() or ".." in path.parts or b"\0" in name or "\ufffd" in text:
                raise BadSampleError(Cause.UNSAFE, repr(text))
        return Row(number, start, 0, key, checked(caption))
    except BadSampleError as bad:
        return Entry(file, key[:200], bad.cause, bad.detail)


class PairTable(IndexedPairs):
    """Rows of a CSV or TSV file: the path of an image below `root`, and a caption.

    Values are taken as they stand: no quoting, no word that means "missing". A row with another number of columns than
    the header goes into the ledger.

    Args:
        file: UTF-8 with a header line.
        root: Of the image paths; None: the file's folder.
        separator: Between columns.
        image: Name of the column of paths.
        caption: Name of the column of captions.
        home: Where the index goes; None: beside the file.
    """

    def __init__(
        self, file: Path, *, root: Path | None, separator: str, image: str, caption: str, home: Path | None = None
    ) -> None:
        if not file.is_file():
            raise FileNotFoundError(f"Expected a table of pairs at {file}, found no file.")
        self.table, self.root = file, root or file.parent
        index = open_index(
            home or file.with_name(file.name + ".index"),
            states([file], file.parent),
            ["table", separator, image, caption],
            lambda: _rows_of_table(file, separator, image, caption),
        )
        super().__init__(str(file), index)

    def image(self, index: int) -> bytes:
        return inside(self.root, self.key(index).partition(":")[2]).read_bytes()

    def file(self, index: int) -> str:
        return self.table.name


def _rows_of_table(file: Path, separator: str, image: str, caption: str) -> Iterator[Row | Entry]:
    import pyarrow as pa
    from pyarrow import csv

    bad: list[Entry] = []

    def note(row: Any) -> str:
        detail = f"expected {row.expected_columns} columns, got {row.actual_columns}: {row.text[:200]!r}"
        bad.append(Entry(file.name, "", Cause.COLUMNS, detail))
        return "skip"

    row = 0
    with parquet_errors(file):
        with file.open("rb") as stream:
            names = stream.readline().decode("utf-8-sig").rstrip("\r\n").split(separator)
        _need(file, names, [image, caption])
        reader = csv.open_csv(
            file,
            csv.ReadOptions(use_threads=False),
            csv.ParseOptions(delimiter=separator, quote_char=False, invalid_row_handler=note),
            csv.ConvertOptions(
                include_columns=[image, caption],
                column_types={image: pa.binary(), caption: pa.binary()},
                strings_can_be_null=False,
                check_utf8=False,
            ),
        )
        for batch in reader:
            for name, text in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                key = f"{row}:{name.decode('utf-8', errors='replace')}"  # a path may come in several rows
                yield row_or_entry(0, row, file.name, name, key, text)
                row += 1
    yield from bad


def _need(file: Path, names: list[str], wanted: list[str]) -> None:
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(
            f"{file}: expected the columns {', '.join(wanted)}, found {', '.join(names)}; lacks {missing}."
        )


class PairParquet(IndexedPairs):
    """Rows of the `*.parquet` files of a folder, as `datasets` writes them: an image and a caption a row.

    An image is a struct with `bytes` or `path`, the bytes themselves, or a path below `root`. A parquet file is read
    by row groups; as many as fit into `KEPT_BYTES` stay in memory. Groups of more than a few hundred images make
    reading at random slow.

    Args:
        folder: Of the files.
        root: Of image paths; None: the folder.
        image: Name of the column of images.
        caption: Name of the column of captions (strings).
        home: Where the index goes; None: beside the folder.
    """

    def __init__(self, folder: Path, *, root: Path | None, image: str, caption: str, home: Path | None = None) -> None:
        self.folder, self.root = folder, root or folder
        self.files = sorted(folder.glob("*.parquet"))
        if not self.files:
            raise FileNotFoundError(f"Expected parquet files in {folder}, found none.")
        self._column = image
        index = open_index(
            home or folder.with_name(folder.name + ".index"),
            states(self.files, folder),
            ["parquet", image, caption],
            lambda: _rows_of_parquet(self.files, image, caption),
        )
        super().__init__(str(folder), index)
        self._groups: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def image(self, index: int) -> bytes:
        file, row, _ = self.index.places[index].tolist()
        value = self._value(file, row)
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if not value:
            raise BadSampleError(Cause.NO_IMAGE, "neither bytes nor path")
        if isinstance(value, bytes):
            return value
        return inside(self.root, str(value)).read_bytes()

    def file(self, index: int) -> str:
        return self.files[self.index.places[index]["file"]].name

    @cached_property
    def _starts(self) -> list[np.ndarray]:
        """First row of each row group, for each file."""
        from pyarrow import parquet

        starts = []
        for file in self.files:
            about = parquet.ParquetFile(file).metadata
            starts.append(np.cumsum([0, *(about.row_group(g).num_rows for g in range(about.num_row_groups))]))
        return starts

    def _value(self, file: int, row: int) -> Any:
        from pyarrow import parquet

        with self._lock:
            group = int(np.searchsorted(self._starts[file], row, side="right")) - 1
            if (file, group) not in self._groups:
                with parquet_errors(self.files[file]):
                    column = parquet.ParquetFile(self.files[file]).read_row_group(group, [self._column])[self._column]
                self._groups[file, group] = column
                while len(self._groups) > 1 and sum(c.nbytes for c in self._groups.values()) > KEPT_BYTES:
                    self._groups.popitem(last=False)
            self._groups.move_to_end((file, group))
            with parquet_errors(self.files[file]):
                return self._groups[file, group][row - int(self._starts[file][group])].as_py()


def _rows_of_parquet(files: list[Path], image: str, caption: str) -> Iterator[Row | Entry]:
    """Captions alone are read: an image that is missing shows when it is asked for."""
    from pyarrow import parquet

    for number, file in enumerate(files):
        with parquet_errors(file), parquet.ParquetFile(file) as table:
            _need(file, table.schema_arrow.names, [image, caption])
            row = 0
            for batch in table.iter_batches(columns=[caption]):
                for text in batch.column(0).to_pylist():
                    raw = text.encode() if isinstance(text, str) else text
                    yield row_or_entry(number, row, file.name, None, f"{file.stem}:{row}", raw)
                    row += 1
