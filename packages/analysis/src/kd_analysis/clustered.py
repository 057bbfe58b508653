"""Scores of items that come in clusters, as two numbers a cluster; every score of a suite is then a ratio of two sums.

Items of one cluster (an image, a circular group, a pair) are drawn together, so errors are taken over clusters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Clustered:
    """One task of one model: its score is `points.sum() / weight.sum()`.

    Attributes:
        ids: The clusters, sorted.
        points: What each cluster adds, in score units (1 = all right).
        weight: How much each cluster could add.
        n_items: How many items there are.
    """

    ids: tuple[str, ...]
    points: Float[np.ndarray, " c"]
    weight: Float[np.ndarray, " c"]
    n_items: int

    @property
    def score(self) -> float:
        return float(self.points.sum() / self.weight.sum())


Suite = Mapping[str, Clustered]  # by task


def mean_of_items(scores: Sequence[float]) -> tuple[float, float]:
    return float(sum(scores)), float(len(scores))


def all_right(scores: Sequence[float]) -> tuple[float, float]:
    """One point if every item of the cluster is right (MMVP's pairs, circular groups)."""
    return float(min(scores) >= 1.0), 1.0


def half_and_half(scores: Sequence[float]) -> tuple[float, float]:
    """MME: accuracy over questions and accuracy over images with both right, in equal parts."""
    return 0.5 * sum(scores) / len(scores) + 0.5 * all_right(scores)[0], 1.0


REDUCTIONS = {"mean of items": mean_of_items, "whole clusters": all_right, "items and whole clusters": half_and_half}


def clustered(items: Iterable[tuple[str, float]], reduction: str = "mean of items") -> Clustered:
    """Group (cluster, score) of the items of one task.

    Raises:
        ValueError: If there is no item, or no such reduction.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"Unknown reduction {reduction!r}. Known: {', '.join(REDUCTIONS)}.")
    groups: dict[str, list[float]] = {}
    for cluster, score in items:
        groups.setdefault(cluster, []).append(score)
    if not groups:
        raise ValueError("Expected at least one item, got none.")
    ids = tuple(sorted(groups))
    pairs = np.array([REDUCTIONS[reduction](groups[i]) for i in ids])
    return Clustered(ids, pairs[:, 0], pairs[:, 1], sum(map(len, groups.values())))


def difference(one: Suite, two: Suite) -> dict[str, Clustered]:
    """`one` minus `two`, cluster by cluster.

    Raises:
        ValueError: If the two were not scored on the same tasks and clusters.
    """
    if one.keys() != two.keys():
        raise ValueError(f"Expected scores on the same tasks; only one side has {sorted(one.keys() ^ two.keys())}.")
    return {task: _minus(task, one[task], two[task]) for task in one}


def _minus(task: str, one: Clustered, two: Clustered) -> Clustered:
    if one.ids != two.ids or not np.array_equal(one.weight, two.weight):
        raise ValueError(
            f"{task}: expected both models to be scored on the same items; they differ in "
            f"{len(set(one.ids) ^ set(two.ids))} clusters. Score both on the same data."
        )
    return Clustered(one.ids, one.points - two.points, one.weight, one.n_items)


def mean_suite(suites: Sequence[Suite]) -> dict[str, Clustered]:
    """The mean of several suites on the same items (seeds, architectures).

    Raises:
        ValueError: If there is none, or they were not scored on the same items.
    """
    if not suites:
        raise ValueError("Expected at least one suite, got none.")
    first = suites[0]
    for other in suites[1:]:
        difference(first, other)
    return {
        task: Clustered(c.ids, np.mean([s[task].points for s in suites], axis=0), c.weight, c.n_items)
        for task, c in first.items()
    }


def average(suite: Suite) -> float:
    """The plain mean of the tasks' scores."""
    return float(np.mean([task.score for task in suite.values()]))
