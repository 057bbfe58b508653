"""The items of one task that several models answered, in one order, and how they make the task's score."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kd_evalsuite.items import DataError
from kd_evalsuite.records import Score
from kd_evalsuite.resample import Floats, Integers, Stratum, strata_of
from kd_evalsuite.results import ItemRow, Result
from kd_evalsuite.score import ITEMS, SCORES

LISTED = 5  # missing ids that an error names, for each model and task
REPRODUCED = 1e-5  # item scores are written with six digits
GROUPS: dict[str, Callable[[ItemRow], str]] = {
    "items": lambda row: row.id,
    "clusters": lambda row: row.cluster,
    "categories": lambda row: row.category,
}


@dataclass(frozen=True)
class Aligned:
    """One task.

    Attributes:
        task: Its key.
        ids: (n,) in the order of the first model's file.
        scores: (n, m) of m models, each in [0, 1].
        clusters: (n,) labels.
        categories: (n,) labels; empty where the dataset has none.
        answers: (n, m) what was read from the replies.
        way: The score is a mean over `items`, over `clusters` (pairs, circular groups), or over `categories`.
        left_out: Items that not all models answered.
    """

    task: str
    ids: tuple[str, ...]
    scores: Floats
    clusters: tuple[str, ...]
    categories: tuple[str, ...]
    answers: tuple[tuple[str | None, ...], ...]
    way: str
    left_out: int = 0

    @cached_property
    def units(self) -> tuple[Floats, Integers, Integers]:
        """What is counted: (u, m) scores, (u,) clusters and (u,) strata; a unit is an item, or a whole cluster."""
        clusters = _numbered(self.clusters)
        strata = _numbered(self.categories) if self.way == "categories" else np.zeros(len(self.ids), dtype=np.int64)
        if self.way != "clusters":
            return self.scores, clusters, strata
        sizes = np.bincount(clusters)
        means = np.stack([np.bincount(clusters, column) for column in self.scores.T], axis=1) / sizes[:, None]
        return means, np.arange(len(sizes)), np.zeros(len(sizes), dtype=np.int64)

    def strata(self, second: int, first: int | None = None) -> tuple[Stratum, ...]:
        """The clusters of one model, or of model `second` minus model `first`."""
        scores, clusters, strata = self.units
        values = scores[:, second] if first is None else scores[:, second] - scores[:, first]
        return strata_of(values, clusters, strata)


def _numbered(labels: Sequence[str]) -> Integers:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def align(results: Sequence[Result], task: str, *, common: bool = False) -> Aligned:
    """The items of a task in all models.

    Args:
        results: The models; each has this task.
        task: Its key.
        common: Whether to leave out what not all models answered, in whole clusters.

    Raises:
        DataError: If models were scored in different ways or on different data, if items are missing (with their ids)
            and `common` is false, or if a model's items do not give its score.
    """
    refuse_other_versions(results, [task])
    way = weighting(results, task)
    tables = [r.items[task] for r in results]
    clusters = _clusters(tables)
    everything = dict.fromkeys(i for table in tables for i in table)
    partial = {i for i in everything if any(i not in table for table in tables)}
    if partial and not common:
        raise DataError(_missing(results, task, partial))
    broken = {clusters[i] for i in partial}
    ids = tuple(i for i in everything if i not in partial and clusters[i] not in broken)
    if not ids:
        raise DataError(f"{task}: {', '.join(r.label for r in results)} have no items in common.")
    return Aligned(
        task=task,
        ids=ids,
        scores=np.array([[table[i].score for table in tables] for i in ids]),
        clusters=tuple(clusters[i] for i in ids),
        categories=tuple(tables[0][i].category for i in ids),
        answers=tuple(tuple(table[i].answer for table in tables) for i in ids),
        way=way,
        left_out=len(everything) - len(ids),
    )


def refuse_other_versions(results: Sequence[Result], tasks: Sequence[str]) -> None:
    """Scores of one task must be of one metric, protocol, scorer and data.

    Raises:
        DataError: With the tasks of which they are not, and how the first one's differ.
    """
    versions = {task: {r.label: _version(r.mains[task]) for r in results} for task in tasks}
    if other := [task for task, found in versions.items() if len(set(found.values())) > 1]:
        each = "; ".join(f"{label}: {version}" for label, version in versions[other[0]].items())
        raise DataError(
            f"{', '.join(other)} {'was' if len(other) == 1 else 'were'} scored in different ways or on different data "
            f"({other[0]}: {each}). Score all predictions under one protocol and on the same data, or choose other "
            "tasks with --task."
        )


def _version(score: Score) -> str:
    return f"{score.metric} {score.benchmark_version}"


def _clusters(tables: Sequence[Mapping[str, ItemRow]]) -> dict[str, str]:
    """The cluster of every item: that of the model with the fewest, which is the safest, where it has the item."""
    found = [{i: row.cluster for i, row in table.items()} for table in tables]
    merged: dict[str, str] = {}
    for one in sorted(found, key=lambda c: -len(set(c.values()))):
        merged |= one
    return merged


def _missing(results: Sequence[Result], task: str, partial: set[str]) -> str:
    lines = [f"{task}: {len(partial)} items were not answered by all models."]
    for r in results:
        if absent := sorted(i for i in partial if i not in r.items[task]):
            more = f" and {len(absent) - LISTED} more" if len(absent) > LISTED else ""
            lines.append(f"  {r.label} lacks {len(absent)}: {', '.join(absent[:LISTED])}{more}")
    lines.append("  Predict and score what is missing, or pass --common to compare on the other items alone.")
    return "\n".join(lines)


# ---------------------------------------------------------------- how items make a score


def weighting(results: Sequence[Result], task: str) -> str:
    """Over what the score of a task is a mean, found as the first of `GROUPS` that gives every model's value.

    Where a score's n is the number of clusters, they come first: pairs and circular groups count as one.

    Raises:
        DataError: If none does: `items.jsonl` and `scores.json` were not made together.
    """
    pairs = [(r.items[task], r.mains[task]) for r in results]
    ways = sorted(GROUPS, key=lambda way: way != _counted(*pairs[0]))
    for way in ways:
        if all(_gives(way, items, score) for items, score in pairs):
            return way
    wrong = next((r for r in results if not any(_gives(w, r.items[task], r.mains[task]) for w in ways)), results[0])
    raise DataError(
        f"{wrong.folder}: the items of {task} do not give its score of {wrong.mains[task].value:.6g}: {ITEMS} and "
        f"{SCORES} were not made together. Run evalsuite score again."
    )


def _counted(items: Mapping[str, ItemRow], score: Score) -> str:
    return "clusters" if score.n == len({row.cluster for row in items.values()}) else "items"


def _gives(way: str, items: Mapping[str, ItemRow], score: Score) -> bool:
    groups: dict[str, list[float]] = {}
    for row in items.values():
        groups.setdefault(GROUPS[way](row), []).append(row.score)
    value = math.fsum(math.fsum(g) / len(g) for g in groups.values()) / len(groups)
    return abs(value - score.value / score.best) <= REPRODUCED
