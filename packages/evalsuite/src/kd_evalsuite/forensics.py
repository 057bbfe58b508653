"""Looks into a published table: which numbers of items its digits allow, and what in it cannot be as it says.

Nothing here proves intent; a finding says what the digits rule out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kd_evalsuite.grim import explained, luck
from kd_evalsuite.known import others
from kd_evalsuite.printed import Column, Printed
from kd_evalsuite.suspicions import Finding, about_average, about_twins, about_values, in_range

DECISIVE = 1e-3  # a count that would explain unrelated values with at most this probability says something
MOST_PARTS = 6  # of a split by a text column


@dataclass(frozen=True)
class Fit:
    """A number of items that explains every value, and how likely it would explain unrelated ones."""

    n: int
    what: str
    luck: float


@dataclass(frozen=True)
class Part:
    """Some rows of a column with the counts that explain them all.

    Attributes:
        where: Which rows, in words; empty for all.
        rows: How many.
        own: Fits among the benchmark's own counts.
        foreign: Fits among other benchmarks' counts, where no own count fits and only decisive ones.
        scanned: The smallest counts of the range that fit, where no own count does.
        n_scanned: How many of the range fit.
        by_luck: How many would fit unrelated values.
        power: Whether any own count is small enough for the digits to say something.
    """

    where: str
    rows: int
    own: tuple[Fit, ...]
    foreign: tuple[Fit, ...] = ()
    scanned: tuple[int, ...] = ()
    n_scanned: int = 0
    by_luck: float = 0.0
    power: bool = True


@dataclass(frozen=True)
class Examined:
    """A column: all rows together, and split by a text column where that explains what all rows together do not."""

    column: Column
    whole: Part
    parts: tuple[Part, ...] = ()
    split_by: str = ""


def examine(
    table: Printed, *, scan: tuple[int, int] = (100, 10_000), by: str | None = None
) -> tuple[list[Examined], list[Finding]]:
    """Every column, and what is found.

    Args:
        table: As printed.
        scan: The range of counts that is searched where no known one fits.
        by: Split every column by this text column; otherwise only where it is needed.

    Raises:
        ValueError: If there is no such text column.
    """
    if by is not None and by not in table.labels:
        raise ValueError(f"Expected a text column to split by, got {by!r}; there are {', '.join(table.labels)}.")
    examined = [_examined(table, column, scan, by) for column in table.columns]
    findings = [f for one in examined for f in (*_about_counts(table, one), *about_values(one.column))]
    return examined, [*findings, *about_average(table), *about_twins(table)]


# ---------------------------------------------------------------- counts


def _examined(table: Printed, column: Column, scan: tuple[int, int], by: str | None) -> Examined:
    whole = part_of(column, "", scan)
    if column.known.kind != "fraction" or not in_range(column):
        return Examined(column, whole)
    if by is None and (whole.own or not whole.power):
        return Examined(column, whole)
    for name in [by] if by else table.labels:
        parts = [part_of(some, f"{name} {value}", scan) for value, some in _split(table, column, name).items()]
        if by or (1 < len(parts) <= MOST_PARTS and all(p.own or p.foreign for p in parts)):
            return Examined(column, whole, tuple(parts), name)
    return Examined(column, whole)


def _split(table: Printed, column: Column, name: str) -> dict[str, Column]:
    groups: dict[str, list[int]] = {}
    for row in column.rows:
        groups.setdefault(table.labels[name][row], []).append(row)
    return {value: column.only(rows) for value, rows in groups.items()}


def part_of(column: Column, where: str, scan: tuple[int, int]) -> Part:
    """The counts that explain all values of a column."""
    rows = len(column.values)
    if column.known.kind != "fraction" or not in_range(column):
        return Part(where, rows, (), power=False)
    own = _fits(column, column.known.counts)
    power = not column.known.counts or any(_luck(column, n) <= DECISIVE for n in column.known.counts)
    if own or not power:
        return Part(where, rows, own, power=power)
    foreign = tuple(f for f in _fits(column, others(column.benchmark)) if f.luck <= DECISIVE)
    searched = range(scan[0], scan[1] + 1)
    found = [n for n, good in zip(searched, _explains(column, searched), strict=True) if good]
    by_luck = sum(_luck(column, n) for n in searched)
    return Part(where, rows, (), foreign, tuple(found[:5]), len(found), by_luck)


def _fits(column: Column, counts: Mapping[int, str]) -> tuple[Fit, ...]:
    good = _explains(column, counts)
    return tuple(Fit(n, what, _luck(column, n)) for (n, what), yes in zip(counts.items(), good, strict=True) if yes)


def _explains(column: Column, counts: Sequence[int] | Mapping[int, str]) -> list[bool]:
    if not counts:
        return []
    good = explained(column.values, counts, decimals=column.decimals, scale=column.known.scale)
    return [bool(good[:, k].all()) for k in range(len(counts))]


def _luck(column: Column, n: int) -> float:
    return luck(n, len(set(column.values)), decimals=column.decimals, scale=column.known.scale)


def _about_counts(table: Printed, one: Examined) -> list[Finding]:
    column = one.column
    if column.known.kind != "fraction" or not in_range(column) or not column.known.counts:
        return []
    found = []
    for part in one.parts or (one.whole,):
        if part.own or not part.power:
            continue
        where = f" where {part.where}" if part.where else ""
        if part.foreign:
            best = min(part.foreign, key=lambda f: f.luck)
            found.append(
                Finding(
                    "another benchmark",
                    column.name,
                    f"all {part.rows} values{where} are fractions of {best.n} ({best.what}), none of its own counts "
                    f"({_listed(column.known.counts)}) explains them; unrelated values would fit with probability "
                    f"{best.luck:.1g}{_companion(table, column, best, part)}",
                )
            )
        else:
            found.append(Finding("no count", column.name, _unexplained(table, one, part)))
    return found


def _companion(table: Printed, column: Column, fit: Fit, part: Part) -> str:
    """The table's column of the benchmark whose count fits, if their values move together."""
    wanted = fit.what.split(",")[0].split("_")[0]
    near = next((c for c in table.columns if c.benchmark and c.benchmark.startswith(wanted) and c is not column), None)
    if near is None:
        return ""
    mine = dict(zip(column.rows, column.values, strict=True))
    theirs = dict(zip(near.rows, near.values, strict=True))
    rows = [row for row in mine if row in theirs and _belongs(table, row, part)]
    if len(rows) < 3:
        return ""
    r = float(np.corrcoef([float(mine[k]) for k in rows], [float(theirs[k]) for k in rows])[0, 1])
    return f"; correlation with the column {near.name} {r:.3f}"


def _belongs(table: Printed, row: int, part: Part) -> bool:
    return not part.where or any(f"{name} {values[row]}" == part.where for name, values in table.labels.items())


def _unexplained(table: Printed, one: Examined, part: Part) -> str:
    column = one.column
    rows = [row for row in column.rows if _belongs(table, row, part)]
    some = column.only(rows)
    counts = list(column.known.counts)
    good = explained(some.values, counts, decimals=column.decimals, scale=column.known.scale)
    best = int(np.argmax(good.sum(axis=0)))
    bad = [k for k in range(len(some.values)) if not good[k, best]]
    named = "; ".join(f"{some.values[k]} ({table.row_name(some.rows[k])})" for k in bad[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    text = f"{len(bad)} of {len(some.values)} values are no fraction of {counts[best]}: {named}{more}"
    if part.n_scanned:
        text += f"; counts that explain all: {_listed(part.scanned)}{' …' if part.n_scanned > 5 else ''}"
        text += f" ({part.n_scanned} in the range, {part.by_luck:.2g} by luck)"
    return text


def _listed(counts: Sequence[int] | Mapping[int, str]) -> str:
    return ", ".join(map(str, counts))
