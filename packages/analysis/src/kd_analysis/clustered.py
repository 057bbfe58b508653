"""Scores of items that come in clusters, as two numbers a cluster: a task's score is a ratio of two sums.

Items of one cluster (an image, a circular group, a pair) are drawn together, so errors are taken over clusters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Clustered:
    """One task of one model, or the difference of two models on it: its score is `points.sum() / weight.sum()`.

    Attributes:
        ids: The clusters, sorted.
        points: The sum of each cluster's item scores; an item's lies in [0, 1], a difference's in [-1, 1].
        weight: How many items each cluster has.
    """

    ids: tuple[str, ...]
    points: Float[np.ndarray, " c"]
    weight: Float[np.ndarray, " c"]

    @property
    def score(self) -> float:
        return float(self.points.sum() / self.weight.sum())

    @property
    def n_items(self) -> int:
        return int(self.weight.sum())


Suite = Mapping[str, Clustered]  # by task


def clustered(items: Iterable[tuple[str, float]]) -> Clustered:
    """Group the (cluster, score) of the items of one task.

    Raises:
        ValueError: If there is no item.
    """
    sums: dict[str, list[float]] = {}
    for cluster, score in items:
        both = sums.setdefault(cluster, [0.0, 0.0])
        both[0] += score
        both[1] += 1
    return summed(sums)


def summed(clusters: Mapping[str, Sequence[float]]) -> Clustered:
    """The same from the (sum, number) of item scores of each cluster.

    Raises:
        ValueError: If there is no cluster.
    """
    if not clusters:
        raise ValueError("Expected at least one item, got none.")
    ids = tuple(sorted(clusters))
    points, weight = np.array([clusters[i] for i in ids], dtype=np.float64).T
    return Clustered(ids, points, weight)


def difference(one: Suite, two: Suite) -> dict[str, Clustered]:
    """`one` minus `two`, cluster by cluster.

    Raises:
        ValueError: If the two were not scored on the same tasks and items.
    """
    if one.keys() != two.keys():
        raise ValueError(f"Expected scores on the same tasks; only one side has {sorted(one.keys() ^ two.keys())}.")
    return {task: _minus(task, one[task], two[task]) for task in one}


def _minus(task: str, one: Clustered, two: Clustered) -> Clustered:
    if one.ids != two.ids or not np.array_equal(one.weight, two.weight):
        raise ValueError(
            f"{task}: expected both models to be scored on the same items; their clusters differ "
            f"({len(set(one.ids) ^ set(two.ids))} stand on one side alone). Score both on the same data."
        )
    return Clustered(one.ids, one.points - two.points, one.weight)


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
        task: Clustered(c.ids, np.mean([s[task].points for s in suites], axis=0), c.weight) for task, c in first.items()
    }


def average(suite: Suite) -> float:
    """The plain mean of the tasks' scores."""
    return float(np.mean([task.score for task in suite.values()]))
