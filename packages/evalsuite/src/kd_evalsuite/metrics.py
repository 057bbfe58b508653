"""From judged items to one number with its error and its chance level.

A metric is a judge (reply, item -> verdict) and an aggregate (verdicts -> estimate). Aggregates do not depend on the
order of the items.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kd_evalsuite.items import DataError, Item
from kd_evalsuite.stats import clustered_stderr, mean, sum_stderr


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good a reply is, in [0, 1], and the answer read from it; None if none could be read (then the score is 0)."""

    score: float
    answer: str | None


@dataclass(frozen=True, slots=True)
class Judged:
    """An item with its verdict and the cluster it is resampled with."""

    item: Item
    cluster: str
    verdict: Verdict

    @property
    def chance(self) -> float:
        """Probability that a uniform guess among the options is right; 0 for an open answer."""
        return 1 / len(self.item.choices) if self.item.choices else 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value with error and chance.

    Attributes:
        value: In [0, best].
        stderr: Of the value, in its unit.
        n: How many units it is a mean over: items, pairs or groups.
        chance: The value of a uniform guess among the options; None where no item has options.
        judged: The items that count.
        shares: For each of them its part in [0, 1], such that the mean is value / best (within each category, where the
            metric is a sum over categories). The score of an item in `items.jsonl`.
    """

    value: float
    best: float
    stderr: float
    n: int
    chance: float | None
    judged: Sequence[Judged]
    shares: Sequence[float]


Judge = Callable[[str, Item], Verdict]
Aggregate = Callable[[Sequence[Judged]], Estimate]


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    judge: Judge
    aggregate: Aggregate


class NothingCountsError(DataError):
    """No item counts for a metric, as for the accuracy over images where no question has one."""


def items_mean(judged: Sequence[Judged]) -> Estimate:
    """The mean over items; the error is clustered.

    Raises:
        NothingCountsError: If there are none.
    """
    if not judged:
        raise NothingCountsError("No item counts for this metric.")
    scores = [j.verdict.score for j in judged]
    chance = mean([j.chance for j in judged]) if any(j.item.choices for j in judged) else None
    stderr = clustered_stderr(scores, [j.cluster for j in judged])
    return Estimate(mean(scores), 1.0, stderr, len(judged), chance, judged, scores)


def mean_where(keep: Callable[[Item], bool]) -> Aggregate:
    """The mean over the items that `keep` accepts."""
    return lambda judged: items_mean([j for j in judged if keep(j.item)])


def clusters_right(judged: Sequence[Judged]) -> Estimate:
    """The share of clusters (pairs, circular groups) in which every item is right."""
    groups = _groups(judged)
    right = {k: float(all(j.verdict.score == 1 for j in v)) for k, v in groups.items()}
    shares = [right[j.cluster] for j in judged]
    chance = mean([math.prod(j.chance for j in v) for v in groups.values()])
    stderr = clustered_stderr(list(right.values()), list(right))
    return Estimate(mean(list(right.values())), 1.0, stderr, len(groups), chance, judged, shares)


def category_mean(judged: Sequence[Judged]) -> Estimate:
    """The mean of the categories' means, each category weighing the same."""
    parts = [items_mean(v) for v in _groups(judged, by_category=True).values()]
    stderr = sum_stderr(p.stderr for p in parts) / len(parts)
    chance = mean([p.chance or 0.0 for p in parts]) if any(p.chance is not None for p in parts) else None
    value = mean([p.value for p in parts])
    return Estimate(value, 1.0, stderr, len(judged), chance, judged, [j.verdict.score for j in judged])


def mme_total(judged: Sequence[Judged]) -> Estimate:
    """The sum over categories of 100 (accuracy + accuracy of images with both questions right), at most 200 each.

    Within a category the score is the mean over its images of 100 (share right + both right), so its error is the
    standard error of that mean, and categories are independent: the error is exact, with no resampling.

    Raises:
        DataError: If an image does not have exactly two questions.

    Source: Fu et al., MME, 2023, section 2.2.
    """
    shares: dict[str, float] = {}
    values, stderrs, chances = [], [], []
    for rows in _groups(judged, by_category=True).values():
        images = _groups(rows)
        for name, pair in images.items():
            if len(pair) != 2:
                raise DataError(f"MME: expected two questions on image {name}, found {len(pair)}.")
            right = [j.verdict.score for j in pair]
            shares[name] = (mean(right) + float(min(right) == 1)) / 2
        of_category = [shares[name] for name in images]
        values.append(200 * mean(of_category))
        stderrs.append(200 * clustered_stderr(of_category, list(images)))
        chances.append(
            100 * mean([mean([j.chance for j in p]) + math.prod(j.chance for j in p) for p in images.values()])
        )
    best = 200.0 * len(values)
    parts = [shares[j.cluster] for j in judged]
    return Estimate(math.fsum(values), best, sum_stderr(stderrs), len(judged), math.fsum(chances), judged, parts)


def _groups(judged: Sequence[Judged], *, by_category: bool = False) -> Mapping[str, list[Judged]]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        groups[one.item.category if by_category else one.cluster].append(one)
    return {key: groups[key] for key in sorted(groups)}
