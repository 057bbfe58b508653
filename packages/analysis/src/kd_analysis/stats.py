"""Errors and tests for scores: clustered intervals, paired differences, the Average of tasks, seeds, multiplicity.

Everything is in score units (1 = all right); a caller that shows points multiplies by 100.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats as distributions

from kd_analysis.clustered import Clustered, Suite, average, difference, mean_suite


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and interval, and what the interval covers.

    Attributes:
        method: How the interval was made, in words for the reader.
        seeds: How many training seeds stand behind the value; with one, training variance is not covered.
        freedom: Degrees of freedom of Student's distribution; infinite for a normal or bootstrap interval.
        se_items: The part of the error that other items would change; None where it was not taken apart.
        se_seeds: The part that other trainings would change; None with one seed.
    """

    value: float
    se: float
    low: float
    high: float
    level: float
    method: str
    seeds: int = 1
    freedom: float = math.inf
    se_items: float | None = None
    se_seeds: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the value is above zero: yes, no (the interval lies below), or not resolvable (it holds zero)."""
        return "yes" if self.low > 0 else "no" if self.high < 0 else "not resolvable"

    @property
    def p(self) -> float:
        """Two-sided, from the standard error and the degrees of freedom."""
        if math.isnan(self.se):
            return math.nan
        if not self.se > 0:
            return float(self.value == 0)
        return float(2 * distributions.t.sf(abs(self.value) / self.se, self.freedom))


# ---------------------------------------------------------------- one suite, or the difference of two


def sandwich_se(task: Clustered) -> float:
    """The cluster-robust standard error of one task's score; NaN with a single cluster."""
    count = len(task.ids)
    if count < 2:
        return math.nan
    residual = task.points - task.score * task.weight
    return math.sqrt(count / (count - 1) * float(residual @ residual)) / float(task.weight.sum())


def average_se(suite: Suite) -> float:
    """The standard error of the Average over these very tasks: items are drawn anew, tasks are not."""
    return math.sqrt(sum(sandwich_se(task) ** 2 for task in suite.values())) / len(suite)


def normal(suite: Suite, level: float = 0.95) -> Estimate:
    """The Average of a suite (or of a difference of suites, or of one task) with its normal interval."""
    value, se = average(suite), average_se(suite)
    half = distributions.norm.ppf(0.5 + level / 2) * se
    return Estimate(value, se, value - half, value + half, level, "items, clustered")


def bootstrap(
    suite: Suite,
    rng: np.random.Generator,
    *,
    n_bootstrap: int = 2000,
    level: float = 0.95,
    resample_tasks: bool = False,
) -> Estimate:
    """The Average with a percentile interval from resampled clusters.

    Args:
        suite: Scores, or a difference of scores (then both models get the same resample: the comparison is paired).
        rng: The only source of randomness.
        n_bootstrap: How many resamples.
        level: Coverage, for instance 0.95.
        resample_tasks: Draw the tasks too (hierarchical): the interval then speaks of other tasks of this kind, not
            only of other items.
    """
    names = sorted(suite)
    draws = np.stack([_resampled_scores(suite[name], rng, n_bootstrap) for name in names])
    if resample_tasks:
        picked = rng.integers(len(names), size=(len(names), n_bootstrap))
        draws = np.take_along_axis(draws, picked, axis=0)
    means = draws.mean(axis=0)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    method = "bootstrap over tasks and items" if resample_tasks else "bootstrap over items"
    return Estimate(average(suite), float(means.std(ddof=1)), float(low), float(high), level, method)


def _resampled_scores(task: Clustered, rng: np.random.Generator, n_bootstrap: int) -> Float[np.ndarray, " b"]:
    """The task's score in each resample. Clusters that add the same are drawn as one kind: there are few kinds."""
    (points,), weight = _resampled((task.points,), task.weight, rng, n_bootstrap)
    return points / weight


def _resampled(
    points: Sequence[Float[np.ndarray, " c"]], weight: Float[np.ndarray, " c"], rng: np.random.Generator, n: int
) -> tuple[list[Float[np.ndarray, " b"]], Float[np.ndarray, " b"]]:
    """Sums of points and of weight over n resamples of the clusters; the same resample for every entry of `points`."""
    count = len(weight)
    order = np.lexsort((weight, *points))
    table = np.stack([*points, weight])[:, order]
    first = np.flatnonzero(np.r_[True, np.any(np.diff(table, axis=1) != 0, axis=0)])
    kinds, often = table[:, first], np.diff(np.r_[first, count])
    draws = rng.multinomial(count, often / count, size=n).astype(np.float64)
    *sums, total = (draws @ kind for kind in kinds)
    return sums, total


def bootstrap_ratio(
    above: Suite, below: Suite, rng: np.random.Generator, *, n_bootstrap: int = 2000, level: float = 0.95
) -> Estimate:
    """Average of `above` over that of `below` (a student over its teacher), paired: both get the same resample.

    The ratio and its limits are NaN where `below` scores nothing, in the data or in a resample.

    Raises:
        ValueError: If the two were not scored on the same tasks and items.
    """
    difference(above, below)
    value = average(above) / average(below) if average(below) > 0 else math.nan
    sides = np.zeros((2, n_bootstrap))
    for name in sorted(above):
        points = (above[name].points, below[name].points)
        sums, weight = _resampled(points, above[name].weight, rng, n_bootstrap)
        sides += np.stack(sums) / weight
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(sides[1] > 0, sides[0] / sides[1], math.nan)
    low, high = np.quantile(ratios, [0.5 - level / 2, 0.5 + level / 2])
    se = float(ratios.std(ddof=1))
    return Estimate(value, se, float(low), float(high), level, "bootstrap over items, paired")


# ---------------------------------------------------------------- seeds


def t_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean, standard error and Student's interval over training seeds; NaN error with one value."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, math.nan, math.nan, math.nan, level, "one seed", 1)
    se = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(distributions.t.ppf(0.5 + level / 2, count - 1)) * se
    return Estimate(mean, se, mean - half, mean + half, level, f"{count} seeds", count, count - 1)


def items_and_seeds(suites: Sequence[Suite], level: float = 0.95) -> Estimate:
    """The mean over training seeds, with item and seed variance added.

    All seeds are scored on the same items, so the spread between seeds holds no item error: the variance of the mean is
    that of the seed-averaged items plus sd^2 / k. Degrees of freedom by Welch and Satterthwaite. With one suite this is
    `normal`.

    Args:
        suites: One a seed: scores or paired differences.
        level: Coverage.
    """
    mean = mean_suite(suites)
    if len(suites) == 1:
        return normal(mean, level)
    count, value, item_var = len(suites), average(mean), average_se(mean) ** 2
    seed_var = float(np.var([average(s) for s in suites], ddof=1)) / count
    total = item_var + seed_var
    clusters = sum(len(task.ids) for task in mean.values())
    spread = seed_var**2 / (count - 1) + item_var**2 / max(1, clusters - len(mean))
    freedom = total**2 / spread if spread > 0 else math.inf
    half = float(distributions.t.ppf(0.5 + level / 2, freedom)) * math.sqrt(total)
    return Estimate(
        value, math.sqrt(total), value - half, value + half, level, f"items and {count} seeds", count, freedom,
        math.sqrt(item_var), math.sqrt(seed_var),
    )  # fmt: skip


# ---------------------------------------------------------------- tests


def mcnemar(one: Sequence[bool], two: Sequence[bool]) -> tuple[int, int, float]:
    """Exact McNemar test of two models on the same items.

    Returns:
        How many only the first got right, how many only the second, and the two-sided p.
    """
    if len(one) != len(two):
        raise ValueError(f"Expected the same items on both sides, got {len(one)} and {len(two)}.")
    first = sum(bool(a) and not b for a, b in zip(one, two, strict=True))
    second = sum(bool(b) and not a for a, b in zip(one, two, strict=True))
    if first + second == 0:
        return 0, 0, 1.0
    p = 2 * float(distributions.binom.cdf(min(first, second), first + second, 0.5))
    return first, second, min(1.0, p)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p of a family of tests, under the same names."""
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def sign_test(differences: Sequence[float]) -> tuple[int, int, int, float]:
    """How many are positive, negative and zero, and the exact two-sided p of the signs."""
    up, down = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    p = float(distributions.binomtest(up, up + down).pvalue) if up + down else 1.0
    return up, down, len(differences) - up - down, p


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed ranks: exact up to 50 differences without ties, normal otherwise.

    Zeros are left out. Without any difference left, or with a single one, p is 1.
    """
    some = [d for d in differences if d != 0]
    return float(distributions.wilcoxon(some).pvalue) if len(some) > 1 else 1.0


def mean_over_tasks(
    differences: Sequence[float], rng: np.random.Generator, n_bootstrap: int = 10_000, level: float = 0.95
) -> Estimate:
    """The mean of one difference a task with a percentile interval from resampled tasks; items are not resampled."""
    values = np.asarray(differences, dtype=np.float64)
    means = values[rng.integers(len(values), size=(n_bootstrap, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    se = float(means.std(ddof=1))
    return Estimate(float(values.mean()), se, float(low), float(high), level, "bootstrap over tasks")


def from_error(value: float, se: float, level: float = 0.95, method: str = "unpaired") -> Estimate:
    """A value with its normal interval; NaN limits where the error is unknown."""
    half = float(distributions.norm.ppf(0.5 + level / 2)) * se
    return Estimate(value, se, value - half, value + half, level, method)


def minimum_detectable_difference(
    se: float, level: float = 0.95, power: float = 0.8, freedom: float = math.inf
) -> float:
    """The true difference that a two-sided test with this standard error finds with probability `power`.

    NaN without an error: where no items differ, nothing tells what could have been found.
    """
    if se == 0:
        return math.nan
    return float(distributions.t.ppf(0.5 + level / 2, freedom) + distributions.t.ppf(power, freedom)) * se
