"""What a report shows: scores with their errors, categories, comparisons, items to look at."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kd_evalsuite import resample
from kd_evalsuite.alarms import Alarm, alarms
from kd_evalsuite.aligned import Aligned, align
from kd_evalsuite.average import AVERAGE
from kd_evalsuite.compare import USUAL, Comparison, How, compare, group_of, groups_of, in_average
from kd_evalsuite.exhibits import Exhibit, Flips, Looker, find_flips, worst
from kd_evalsuite.items import DataError
from kd_evalsuite.records import Score
from kd_evalsuite.results import Result
from kd_evalsuite.stats import score_interval
from kd_evalsuite.tasks import EVERY

MOST_FLIPS = 400  # items of all tasks and pairs on which models differ; beyond that each shows fewer, at last none
MOST_CATEGORIES = 30  # more are left out of a figure, the smallest first; the CSV has all


@dataclass(frozen=True)
class Cell:
    """One model's main score on a task, in points, with its interval."""

    score: Score
    low: float
    high: float
    remarks: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        return self.score.percent

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Row:
    """A task, and the cells of the models that were scored on it."""

    task: str
    group: str
    metric: str
    n: int
    asked: int
    chance: float | None
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Category:
    """One category of a task: its number of items, and (value, low, high) of each model in points."""

    name: str
    n: int
    values: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Page:
    """Everything a report says, before it is laid out."""

    results: tuple[Result, ...]
    rows: tuple[Row, ...]
    average: Row | None
    categories: Mapping[str, tuple[Category, ...]]
    comparison: Comparison | None
    flips: tuple[Flips, ...]
    worst: tuple[Exhibit, ...]
    alarms: tuple[Alarm, ...]
    level: float

    @property
    def n_averaged(self) -> int:
        return sum(in_average(row.task) for row in self.rows)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(r.label for r in self.results)


def find(
    results: Sequence[Result],
    tasks: Sequence[str] = (),
    *,
    looker: Looker,
    how: How = USUAL,
    common: bool = False,
    all_pairs: bool = False,
    n_worst: int = 2,
    n_flips: int = 2,
    told: Callable[[str], None] = lambda what: None,
) -> Page:
    """Compute everything that the report of these models says.

    Args:
        results: One model or more.
        tasks: Which; all if empty.
        looker: Finds the items to look at.
        how: Level, resamples, seed.
        common: Compare on what all models have, instead of refusing when something is missing.
        all_pairs: Every pair instead of every model against the first.
        n_worst: Items of each task to look at.
        n_flips: Items of each task, pair and direction to look at; fewer where these would be more than `MOST_FLIPS`.
        told: Called with what is being done.

    Raises:
        DataError: If models cannot be compared, or the data are not those that were scored.
    """
    several = len(results) > 1
    comparison = compare(results, tasks, how=how, common=common, all_pairs=all_pairs, told=told) if several else None
    aligned = comparison.tasks if comparison else _alone(results[0], tasks)
    labels = [r.label for r in results]
    shown = min(n_flips, MOST_FLIPS // (2 * len(comparison.pairs) * len(aligned))) if comparison else 0
    flips: list[Flips] = []
    bad: list[Exhibit] = []
    for key, one in aligned.items():
        told(f"items of {key}")
        if comparison:
            flips += find_flips(one, labels, comparison.pairs, looker, shown)
        bad += looker.look(one, worst(one)[:n_worst])
    remarks = tuple(alarm for r in results for alarm in alarms(r, [key for key in aligned if key in r.mains]))
    rows = tuple(_row(key, results, remarks, how.level) for key in aligned)
    return Page(
        results=tuple(results),
        rows=rows,
        average=_average(results, rows, how.level),
        categories={key: some for key, one in aligned.items() if len(some := _categories(one, how.level)) > 1},
        comparison=comparison,
        flips=tuple(flips),
        worst=tuple(bad),
        alarms=remarks,
        level=how.level,
    )


def _alone(result: Result, tasks: Sequence[str]) -> dict[str, Aligned]:
    if unknown := [key for key in tasks if key not in result.mains]:
        raise DataError(f"{result.label} was not scored on {', '.join(unknown)}; there are {', '.join(result.mains)}.")
    return {key: align([result], key) for key in result.mains if not tasks or key in tasks}


def _row(task: str, results: Sequence[Result], remarks: Iterable[Alarm], level: float) -> Row:
    mains = {r.label: r.mains[task] for r in results if task in r.mains}
    said = {label: tuple(a.kind for a in remarks if (a.model, a.task) == (label, task)) for label in mains}
    first = next(iter(mains.values()))
    return Row(
        task=task,
        group=group_of(task),
        metric=first.metric,
        n=first.n,
        asked=len(results[0].items.get(task, ())),
        chance=None if first.chance is None else 100 * first.chance / first.best,
        cells={label: _cell(score, said[label], level) for label, score in mains.items()},
    )


def _cell(score: Score, remarks: tuple[str, ...], level: float) -> Cell:
    low, high = score_interval(score.percent, 100 * score.stderr / score.best, 100.0, score.n, level)
    return Cell(score, low, high, remarks)


def _average(results: Sequence[Result], rows: Sequence[Row], level: float) -> Row | None:
    """The Averages as they were scored; none if not all models have one over the same, or tasks were left out."""
    found = {r.label: s for r in results if (s := r.scores.main(AVERAGE))}
    counted = {row.task for row in rows if in_average(row.task)}
    whole = {key for r in results for key in r.mains if in_average(key)} == counted
    alike = len({s.benchmark_version for s in found.values()}) == 1
    if len(found) < len(results) or not whole or not alike or len(counted) < 2:
        return None
    cells = {label: _cell(score, (), level) for label, score in found.items()}
    first = next(iter(found.values()))
    return Row(AVERAGE, "", first.metric, first.n, first.n, first.chance, cells)


def _categories(one: Aligned, level: float) -> tuple[Category, ...]:
    """Each category's mean over its items; largest categories first."""
    found = []
    names = np.array(one.categories)
    clusters = np.unique(one.clusters, return_inverse=True)[1]
    for name in sorted(set(one.categories)):
        mine = np.flatnonzero(names == name)
        values = []
        for column in one.scores.T:
            strata = resample.strata_of(column[mine], clusters[mine], np.zeros(len(mine), dtype=np.int64))
            error = resample.stderr(strata) if len(strata[0].points) > 1 else 0.5
            value = 100 * resample.estimate(strata)
            values.append((value, *score_interval(value, 100 * error, 100.0, len(strata[0].points), level)))
        found.append(Category(name or "(none)", len(mine), tuple(values)))
    return tuple(sorted(found, key=lambda c: (-c.n, c.name)))


def in_groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows by the suite's groups, in order; the order of the tasks is kept."""
    groups = groups_of(row.task for row in rows)
    return {group: [row for row in rows if row.group == group] for group in groups}


def source_of(task: str) -> str:
    """The public dataset of a task."""
    return EVERY[task].source if task in EVERY else ""
