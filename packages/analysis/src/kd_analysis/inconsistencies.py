"""Where published numbers cannot all be right, found by checks: a value against another place, a sum, a size, a chance.

Nothing here knows an answer. Each check is a rule about tables; what it finds depends on the numbers alone.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kd_analysis.results import SCORE, Result
from kd_analysis.tasks import AVERAGE, IMAGENET, TASKS, task_of

ROUNDING = 0.005  # half of the last printed digit
SLACK = 0.002  # of an average whose own terms are rounded: sixteen halves of a digit over sixteen, and float error
RARE = 0.05  # a coincidence that is likelier than this is not reported
MME_QUESTIONS = 2374


@dataclass(frozen=True)
class Inconsistency:
    """One finding.

    Attributes:
        kind: Which rule found it.
        where: The table, rows or section.
        says: What is printed.
        but: What it stands against.
    """

    kind: str
    where: str
    says: str
    but: str


def in_tables(printed: Sequence[Result]) -> list[Inconsistency]:
    """Every rule about printed values."""
    checks = (conflicts, averages, wrong_sizes, constants, below_chance, coincidences)
    return [found for check in checks for found in check(printed)]


# ---------------------------------------------------------------- one cell, several places


def conflicts(printed: Sequence[Result]) -> Iterable[Inconsistency]:
    """One cell printed with different values; says where else the odd value stands as something else."""
    cells: dict[tuple[Any, ...], list[Result]] = {}
    for r in printed:
        cells.setdefault(r.key, []).append(r)
    for first, *others in cells.values():
        for other in others:
            if abs(other.value - first.value) > ROUNDING:
                same = [r for r in printed if r.value == other.value and r.task != other.task and _kin(r, other)]
                also = f"; {other.value:g} is its {task_of(same[0].task).title} in {_at(same[0])}" if same else ""
                yield Inconsistency(
                    "two values for one cell", _at(other), f"{first.named}: {other.value:g}",
                    f"{first.value:g} in {_at(first)}{also}",
                )  # fmt: skip


def _kin(one: Result, two: Result) -> bool:
    """Whether two values belong to one trained encoder."""
    return one.metric == two.metric and one.model[2:] == two.model[2:]


def averages(printed: Sequence[Result]) -> Iterable[Inconsistency]:
    """A printed average that is not the mean of its row within what rounding allows."""
    rows: dict[tuple[str, str], list[Result]] = {}
    for r in printed:
        if r.metric == SCORE:
            rows.setdefault((r.table, r.source), []).append(r)
    for row in rows.values():
        tasks, mean = [r for r in row if r.task in TASKS], [r for r in row if r.task == AVERAGE]
        if len(tasks) == len(TASKS) and mean:
            own = sum(r.points for r in tasks) / len(tasks)
            if abs(own - mean[0].value) > 2 * ROUNDING + SLACK:
                yield Inconsistency(
                    "an average that is not the mean", _at(mean[0]), f"{mean[0].value:g}", f"the mean is {own:.2f}"
                )


# ---------------------------------------------------------------- the size and chance of a benchmark


def wrong_sizes(printed: Sequence[Result]) -> Iterable[Inconsistency]:
    """A column that is not all k of the benchmark's size, while another benchmark's size fits every value."""
    sizes = {t.title: t.units for t in TASKS.values() if t.units} | {"MME": MME_QUESTIONS}
    for (framework, task), column in _columns(printed).items():
        size = task_of(task).units
        values = [r.value for r in column]
        if task_of(task).best != 100 or not size or all(_fits(v, size) for v in values):
            continue
        fitting = [
            (title, n) for title, n in sizes.items()
            if all(_fits(v, n) for v in values) and _luck(n) ** len(values) * len(sizes) < RARE
        ]  # fmt: skip
        if fitting:
            title, n = fitting[0]
            wrong = sum(not _fits(v, size) for v in values)
            yield Inconsistency(
                "a column that is another benchmark's", f"{column[0].table}, {framework}",
                f"{task_of(task).title}, {len(values)} values",
                f"{wrong} of them are no k/{size}; all are k/{n}, the size of {title}",
            )  # fmt: skip


def _columns(printed: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    columns: dict[tuple[str, str], list[Result]] = {}
    for r in printed:
        if r.metric == SCORE and r.framework and r.task in TASKS:
            columns.setdefault((r.framework, r.task), []).append(r)
    return columns


def _fits(value: float, n: int) -> bool:
    """Whether a percentage with two digits is some k of n."""
    return abs(100 * round(value * n / 100) / n - value) <= ROUNDING + 1e-9


def _luck(n: int) -> float:
    """The share of two-digit percentages that fit k / n by chance."""
    return min(1.0, 2 * ROUNDING * n / 100)


def constants(printed: Sequence[Result]) -> Iterable[Inconsistency]:
    """One score that many models share to the last digit although their others differ: a constant answer."""
    scores: dict[str, dict[tuple[Any, ...], float]] = {}
    for r in printed:
        if r.metric == SCORE and r.task in TASKS:
            scores.setdefault(r.task, {})[r.model] = r.value
    for task, by_model in scores.items():
        (value, often), = Counter(by_model.values()).most_common(1)  # fmt: skip
        if often >= 5 and often >= len(by_model) / 5:
            count = round(value * task_of(task).units / 100)
            yield Inconsistency(
                "the same score from many models", task_of(task).title,
                f"{value:g} in {often} of {len(by_model)} rows ({count} of {task_of(task).units})",
                "different models do not give equal answers unless the answer is constant",
            )  # fmt: skip


def below_chance(printed: Sequence[Result]) -> Iterable[Inconsistency]:
    """A benchmark on which every model of a language model's lies below what guessing gives."""
    groups: dict[tuple[str, str], dict[tuple[Any, ...], float]] = {}
    for r in printed:
        if r.metric == SCORE and r.task in TASKS and task_of(r.task).chance is not None:
            groups.setdefault((r.task, r.llm), {})[r.model] = r.points
    for (task, llm), some in groups.items():
        chance, top = task_of(task).chance, max(some.values())
        if chance is not None and top < chance:
            yield Inconsistency(
                "below chance", f"{task_of(task).title}, {llm}", f"at most {top:.2f} in {len(some)} rows",
                f"guessing gives {chance:g}: these scores hold no information on the encoder",
            )  # fmt: skip


# ---------------------------------------------------------------- coincidences


def coincidences(printed: Sequence[Result]) -> Iterable[Inconsistency]:
    """Values that are equal to the last digit under different conditions more often than chance explains."""
    conditions: dict[tuple[str, tuple[Any, ...]], dict[str, Result]] = {}
    for r in printed:
        if r.metric == SCORE and r.task in (AVERAGE, IMAGENET) and r.student and r.table in ("Table 4", "Table 5"):
            conditions.setdefault((r.task, (*r.model[:2], *r.model[3:])), {})[r.teacher] = r
    for task in (AVERAGE, IMAGENET):
        some = {c: by for (t, c), by in conditions.items() if t == task}
        every = [r.value for by in some.values() for r in by.values()]
        equal = (2 * ROUNDING) / max(2 * ROUNDING, max(every, default=0) - min(every, default=0))
        yield from _between_conditions(task, some, equal)
        yield from _within_table(task, printed, equal)


def _between_conditions(
    task: str, conditions: dict[tuple[Any, ...], dict[str, Result]], equal: float
) -> Iterable[Inconsistency]:
    pairs = list(itertools.combinations(conditions.values(), 2))
    for one, two in pairs:
        common = [t for t in one if t in two]
        same = [t for t in common if one[t].value == two[t].value]
        if len(same) > 1 and math.comb(len(common), len(same)) * equal ** len(same) * len(pairs) < RARE:
            yield Inconsistency(
                "two conditions with equal values", f"{_at(one[same[0]])} and {_at(two[same[0]])}",
                f"{task_of(task).title} {', '.join(f'{one[t].value:g} ({t})' for t in same)}",
                f"the same under {_condition(one[same[0]])} and {_condition(two[same[0]])}",
            )  # fmt: skip


def _within_table(task: str, printed: Sequence[Result], equal: float) -> Iterable[Inconsistency]:
    tables: dict[str, list[Result]] = {}
    for r in printed:
        if r.task == task and r.metric == SCORE and r.table in ("Table 4", "Table 5"):
            tables.setdefault(r.table, []).append(r)
    for rows in tables.values():
        pairs = list(itertools.combinations(rows, 2))
        same = [(a, b) for a, b in pairs if a.value == b.value]
        if same and len(pairs) * equal < RARE:
            a, b = same[0]
            yield Inconsistency(
                "one value in two rows", f"{_at(a)} and {b.source}", f"{task_of(task).title} {a.value:g}",
                f"for {a.teacher} and for {b.teacher}; chance gives that in {100 * len(pairs) * equal:.1f} % of tables",
            )  # fmt: skip


def _condition(r: Result) -> str:
    return f"{r.loss} on {r.dataset}"


def _at(r: Result) -> str:
    return ", ".join(filter(None, (r.table, r.source))) or "the table"


def size_of(name: str) -> str:
    """B or L, from "ViT-B", "vit-base", "vit-large"; empty if the name does not say."""
    found = re.search(r"vit-?(b|l|base|large)\b", name.lower())
    return found.group(1)[0].upper() if found else ""
