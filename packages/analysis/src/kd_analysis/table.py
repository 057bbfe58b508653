"""A table before it is written: blocks of rows, groups of columns, cells with intervals, the best and the second."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from scipy.stats import norm

from kd_analysis.results import Result

Mark = Literal["best", "second", ""]


@dataclass(frozen=True)
class Cell:
    """A value, in the unit that is shown, with half the width of its interval (NaN if unknown)."""

    value: float
    half: float = math.nan


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: Its name in CSV.
        title: Its heading.
        group: A heading over several columns; empty for none.
        digits: Shown after the point; CSV holds all.
        better: Which values are marked; empty for a column that is no contest.
        signed: Shown with its sign.
    """

    key: str
    title: str
    group: str = ""
    digits: int = 2
    better: Literal["high", "low", ""] = "high"
    signed: bool = False


@dataclass(frozen=True)
class Row:
    """Labels (as many as the table has stubs), cells by column key and plain words by column key."""

    labels: tuple[str, ...]
    cells: dict[str, Cell] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Rows that compete with each other, under a title (may be empty)."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: Of its files and its LaTeX label.
        caption: One or two sentences: what, over what, what is marked.
        stubs: Headings of the label columns.
        texts: Columns of plain words, last; (key, title).
    """

    name: str
    title: str
    caption: str
    stubs: tuple[str, ...]
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def empty(self) -> bool:
        return not any(block.rows for block in self.blocks)


def cell(result: Result | None, level: float) -> Cell | None:
    """The printed value of a result with its normal interval; None where there is none."""
    if result is None or math.isnan(result.value):
        return None
    return Cell(result.value, half_width(result.se, level))


def half_width(se: float, level: float) -> float:
    return float(norm.ppf(0.5 + level / 2)) * se


def resolvable(difference: Cell) -> str:
    """Whether a difference leaves its interval: yes, no, or that there is no error to tell by."""
    if math.isnan(difference.half):
        return "no error known"
    return "yes" if abs(difference.value) > difference.half else "no"


def row(labels: Sequence[str], cells: dict[str, Cell | None], words: dict[str, str] | None = None) -> Row:
    """A row without the cells that are missing."""
    return Row(tuple(labels), {k: c for k, c in cells.items() if c is not None}, words or {})


def blocks(some: Sequence[tuple[str, list[Row]]]) -> tuple[Block, ...]:
    """Blocks with a cell in them."""
    kept = [(title, [r for r in rows if r.cells]) for title, rows in some]
    return tuple(Block(title, tuple(rows)) for title, rows in kept if rows)


def with_data(columns: Sequence[Column], found: Sequence[Block]) -> tuple[Column, ...]:
    """The columns that any row has."""
    return tuple(c for c in columns if any(c.key in r.cells for b in found for r in b.rows))


def marks(table: Table, block: Block) -> dict[tuple[int, str], Mark]:
    """The best and second of each contested column of a block, by (row, column key), as the shown digits tell them.

    Equal ones are all marked. A block of one row has no best, one of two no second.
    """
    found: dict[tuple[int, str], Mark] = {}
    for column in table.columns:
        cells = {i: one.cells[column.key] for i, one in enumerate(block.rows) if column.key in one.cells}
        shown = {i: round(c.value, column.digits) for i, c in cells.items()}
        ranks = sorted(set(shown.values()), reverse=column.better == "high")
        if not column.better or len(shown) < 2 or len(ranks) < 2:
            continue
        for i, value in shown.items():
            if value == ranks[0]:
                found[i, column.key] = "best"
            elif value == ranks[1] and len(shown) > 2:
                found[i, column.key] = "second"
    return found
