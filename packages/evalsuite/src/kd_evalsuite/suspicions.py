"""What printed values themselves give away: a wrong scale, guessing, repetition, an average that is none."""

import math
from collections import Counter
from dataclasses import dataclass

from kd_evalsuite.printed import Column, Printed
from kd_evalsuite.tasks import TASKS

UNLIKELY = 1e-3  # a repetition that chance gives at most this often is remarked on
NAMED = 5  # rows that a finding names


@dataclass(frozen=True)
class Finding:
    """Something that cannot be as it says, or should be asked about."""

    kind: str
    column: str
    says: str


@dataclass(frozen=True)
class AverageCheck:
    """Whether the column of averages is the mean of the benchmarks' columns, each in percent of its scale.

    Attributes:
        columns: How many columns.
        rows: How many rows have all of them.
        agree: In how many the printed average is their mean, as far as rounding allows.
        largest: The largest deviation.
        allowed: The deviation that rounding of all of them can give.
        off: The rows that do not agree, with printed and computed average.
    """

    columns: int
    rows: int
    agree: int
    largest: float
    allowed: float
    off: tuple[tuple[int, float, float], ...]


def in_range(column: Column) -> bool:
    """Whether all values lie on the column's scale."""
    return all(0 <= v <= column.known.scale for v in column.values)


def about_values(column: Column) -> list[Finding]:
    """A scale that does not fit, values of models that see nothing, and values that come again and again."""
    return [*_about_scale(column), *_about_guesses(column), *_about_repetition(column)]


def _about_scale(column: Column) -> list[Finding]:
    scale, low, high = column.known.scale, min(column.values), max(column.values)
    if not in_range(column):
        return [Finding("scale", column.name, f"prints {low} to {high}; expected 0 to {scale}")]
    if 0 < high <= 1 and scale >= 100 and column.known.kind != "sum":
        return [
            Finding("scale", column.name, f"prints {low} to {high}: fractions of 1, where others print 0 to {scale}")
        ]
    if column.known.kind == "sum" and 0 < high <= 100:
        return [Finding("scale", column.name, f"prints {low} to {high}: percent, where its score goes to {scale}")]
    return []


def _about_guesses(column: Column) -> list[Finding]:
    found, n = [], len(column.values)
    for guess, how in column.known.guesses.items():
        if exact := sum(float(v) == guess for v in column.values):
            says = f"{exact} of {n} values {'is' if exact == 1 else 'are'} exactly {guess:g} ({how})"
            found.append(Finding("guess", column.name, says))
    levels = {guess: how for guess, how in column.known.guesses.items() if guess > 0}
    high = float(max(column.values))
    if above := {guess: how for guess, how in levels.items() if high < guess}:
        guess = max(above)
        says = f"all {n} values (at most {max(column.values)}) lie below {guess:g} ({above[guess]})"
        found.append(Finding("guess", column.name, says))
    return found


def _about_repetition(column: Column) -> list[Finding]:
    """A value that comes more often than a uniform draw of the possible values between the least and the largest does.

    The probability that any of m values comes k times among n rows is at most m (n over k) / m^k.
    """
    n, (value, often) = len(column.values), Counter(column.values).most_common(1)[0]
    steps = min(10**column.decimals * column.known.scale, *(column.known.counts or (10**9,)))
    possible = 1 + int((max(column.values) - min(column.values)) * steps / column.known.scale)
    if possible < 2 or possible * math.comb(n, often) / possible**often > UNLIKELY:
        return []
    says = f"{often} of {n} rows print exactly {value}, as when one answer is given to every item"
    return [Finding("repeated", column.name, says)]


def check_average(table: Printed) -> AverageCheck | None:
    """Compare the printed averages with the mean of the sixteen benchmarks' columns; None without both."""
    average, columns = table.average, [c for c in table.columns if c.benchmark in TASKS]
    if average is None or len(columns) < 2:
        return None
    values = [dict(zip(c.rows, c.values, strict=True)) for c in columns]
    allowed = _half(average) + sum(100 * _half(c) / c.known.scale for c in columns) / len(columns)
    deviations = []
    for row, printed in zip(average.rows, average.values, strict=True):
        if all(row in one for one in values):
            shares = [float(one[row]) * 100 / c.known.scale for one, c in zip(values, columns, strict=True)]
            deviations.append((row, float(printed), sum(shares) / len(columns)))
    if not deviations:
        return None
    off = tuple(d for d in deviations if abs(d[1] - d[2]) > allowed + 1e-9)
    largest = max(abs(printed - mean) for _, printed, mean in deviations)
    return AverageCheck(len(columns), len(deviations), len(deviations) - len(off), largest, allowed, off)


def _half(column: Column) -> float:
    return 0.5 * 10.0**-column.decimals


def about_average(table: Printed) -> list[Finding]:
    """The rows whose average is not the mean of their columns."""
    check = check_average(table)
    if check is None or not check.off or table.average is None:
        return []
    named = "; ".join(f"{table.row_name(row)}: {p:g}, the mean is {m:.2f}" for row, p, m in check.off[:NAMED])
    more = f" and {len(check.off) - NAMED} more" if len(check.off) > NAMED else ""
    says = f"{len(check.off)} of {check.rows} rows do not print the mean of {check.columns} columns: {named}{more}"
    return [Finding("average", table.average.name, says)]


def about_twins(table: Printed) -> list[Finding]:
    """Columns that print the same values in every row."""
    found = []
    for k, one in enumerate(table.columns):
        for two in table.columns[k + 1 :]:
            if (one.rows, one.values) == (two.rows, two.values) and len(one.values) > 2:
                found.append(Finding("twins", one.name, f"prints the same values as {two.name} in every row"))
    return found
