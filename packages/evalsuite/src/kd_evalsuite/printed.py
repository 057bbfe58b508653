"""A published table of scores, read as it was printed: digits, scales, and which column is which benchmark."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from kd_evalsuite.items import DataError
from kd_evalsuite.known import KNOWN, Benchmark, benchmark_named
from kd_evalsuite.params import Params, load_section

SECTION = "forensics"
NUMBER = re.compile(r"[-−+]?\d+(\.\d+)?\s*%?")
AVERAGES = {"average", "avg", "avg.", "mean"}
NOTHING = {"", "-", "--", "–", "—", "n/a", "na", "nan"}


class ColumnParams(Params):
    """What is known about one column; what is left out is taken from the benchmark that it is named after."""

    benchmark: str | None = Field(default=None, description="Which benchmark it is, where its name does not say so.")
    counts: list[int] | None = Field(default=None, description="Numbers of items that its scores may be fractions of.")
    scale: int | None = Field(default=None, gt=0, description="The best score as printed.")
    guesses: dict[float, str] | None = Field(default=None, description="Printed values of models that see nothing.")
    kind: Literal["fraction", "graded", "sum"] | None = Field(default=None, description="How items make it.")
    decimals: int | None = Field(default=None, ge=0, le=6, description="Printed; the most there are otherwise.")


class TableParams(Params):
    """The section `forensics` of a declaration."""

    columns: dict[str, ColumnParams] = Field(default_factory=dict)
    average: str | None = Field(default=None, description="The column that is the mean of the others.")
    decimals: int | None = Field(default=None, ge=0, le=6, description="Of every column that does not say its own.")
    ignore: list[str] = Field(default_factory=list, description="Columns that are no scores.")


@dataclass(frozen=True)
class Column:
    """One column of scores.

    Attributes:
        name: Its head.
        benchmark: The key in `known.KNOWN`; None if it was only declared.
        known: How it is printed and what its counts are.
        rows: Which rows have a value.
        values: Their values, as printed.
        decimals: How many were printed. A column printed as 62.9 and 62.91 has two.
    """

    name: str
    benchmark: str | None
    known: Benchmark
    rows: tuple[int, ...]
    values: tuple[Decimal, ...]
    decimals: int

    def only(self, rows: Sequence[int]) -> "Column":
        """The same column in some rows."""
        kept = [(row, value) for row, value in zip(self.rows, self.values, strict=True) if row in set(rows)]
        return Column(
            self.name, self.benchmark, self.known, tuple(r for r, _ in kept), tuple(v for _, v in kept), self.decimals
        )


@dataclass(frozen=True)
class Printed:
    """A table.

    Attributes:
        columns: Those that are scores of benchmarks.
        average: The column that is said to be the mean of the others, if there is one.
        labels: Text columns by name, a value a row.
        ignored: Columns of numbers that nothing is known about.
        n_rows: How many rows.
    """

    columns: tuple[Column, ...]
    average: Column | None
    labels: Mapping[str, tuple[str, ...]]
    ignored: tuple[str, ...]
    n_rows: int

    def row_name(self, row: int) -> str:
        """A row by its text columns."""
        return ", ".join(values[row] for values in self.labels.values()) or f"row {row + 1}"


def read_declaration(path: Path | None) -> TableParams:
    """The section `forensics` of a YAML file; empty without a file."""
    return load_section(path, SECTION, TableParams) if path else TableParams()


def with_options(declared: TableParams, counts: Mapping[str, Sequence[int]], decimals: int | None) -> TableParams:
    """The declaration with the counts of some columns, and the number of decimals, replaced."""
    columns = dict(declared.columns)
    try:
        for name, some in counts.items():
            given = columns.get(name, ColumnParams()).model_dump() | {"counts": list(some)}
            columns[name] = ColumnParams.model_validate(given)
    except ValidationError as error:
        raise DataError(f"--counts: {error.errors()[0]['msg']}") from None
    changes = {"columns": columns} if decimals is None else {"columns": columns, "decimals": decimals}
    return declared.model_copy(update=changes)


def read_table(path: Path, declared: TableParams) -> Printed:
    """A CSV file with a head; one row a model, one column a benchmark.

    Columns are recognised by the names of the benchmarks in their usual spellings, or declared.

    Raises:
        DataError: If it is no table, a declared column is missing, or a column of scores holds something else.
    """
    head, rows = _cells(path)
    if missing := [name for name in (*declared.columns, *declared.ignore) if name not in head]:
        raise DataError(f"{path}: declared columns {', '.join(missing)} are not there; found {', '.join(head)}.")
    columns, labels, ignored, average = [], {}, [], None
    for k, name in enumerate(head):
        cells = [row[k].strip() for row in rows]
        given = declared.columns.get(name)
        key = (given and given.benchmark) or benchmark_named(name)
        if name in declared.ignore:
            ignored.append(name)
        elif name == declared.average or (
            declared.average is None and name.lower() in ("average", "avg", "avg.", "mean")
        ):
            average = _column(path, name, None, ColumnParams(decimals=declared.decimals), cells)
        elif given or key:
            columns.append(_column(path, name, key, _given(given, declared), cells))
        elif all(_number(cell) is not None or _absent(cell) for cell in cells):
            ignored.append(name)
        else:
            labels[name] = tuple(cells)
    if not columns:
        raise DataError(
            f"{path}: no column is named after a benchmark (found {', '.join(head)}). Name them with --counts "
            "COLUMN=N,N or in a --declare file."
        )
    return Printed(tuple(columns), average, labels, tuple(ignored), len(rows))


def _given(column: ColumnParams | None, declared: TableParams) -> ColumnParams:
    column = column or ColumnParams()
    return column if column.decimals is not None else column.model_copy(update={"decimals": declared.decimals})


def _cells(path: Path) -> tuple[list[str], list[list[str]]]:
    if not path.is_file():
        raise DataError(f"Expected a CSV table at {path}, found none.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in csv.reader(stream) if any(cell.strip() for cell in line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table in UTF-8: {error}") from None
    if len(lines) < 2:
        raise DataError(f"{path}: expected a head and rows, found {len(lines)} lines.")
    head = [name.strip() for name in lines[0]]
    if len(set(head)) < len(head):
        raise DataError(f"{path}: expected every column to have another name, found {', '.join(head)}.")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(head):
            raise DataError(f"{path}: row {number} has {len(line)} cells, the head has {len(head)}.")
    return head, lines[1:]


def _column(path: Path, name: str, key: str | None, given: ColumnParams, cells: Sequence[str]) -> Column:
    if key is not None and key not in KNOWN:
        raise DataError(f"{name}: unknown benchmark {key!r}; known: {', '.join(KNOWN)}.")
    known = KNOWN[key] if key else Benchmark()
    known = Benchmark(
        counts=known.counts if given.counts is None else dict.fromkeys(given.counts, "declared"),
        scale=given.scale or known.scale,
        guesses=known.guesses if given.guesses is None else given.guesses,
        kind=given.kind or ("fraction" if given.counts else known.kind),
    )
    rows, values = [], []
    for row, cell in enumerate(cells):
        if _absent(cell):
            continue
        value = _number(cell)
        if value is None:
            raise DataError(f"{path}: row {row + 2}, column {name}: expected a number, found {cell!r}.")
        rows.append(row)
        values.append(value)
    if not values:
        raise DataError(f"{path}: column {name} has no values.")
    most = max(max(0, -int(v.as_tuple().exponent)) for v in values)
    decimals = most if given.decimals is None else given.decimals
    if decimals < most:
        raise DataError(f"{path}: column {name}: {decimals} decimals are declared, {most} are printed.")
    return Column(name, key, known, tuple(rows), tuple(values), decimals)


def _absent(cell: str) -> bool:
    return cell.lower() in NOTHING


def _number(cell: str) -> Decimal | None:
    if not NUMBER.fullmatch(cell):
        return None
    try:
        return Decimal(cell.rstrip("% ").replace("−", "-"))
    except InvalidOperation:
        return None
