"""Resampling of clusters: the paired bootstrap and the sign-flip test, exact and vectorised.

A score, or the difference of two models' scores on the same items, is a mean over strata (one, or the categories of a
metric that is a sum over categories) of a ratio: points over weight, both summed over clusters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kd_evalsuite.stats import mcnemar

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
CHUNK = 4_000_000  # numbers in memory at once
DEAREST_KINDS = 12  # a multinomial count costs about as much as drawing so many clusters by index


@dataclass(frozen=True, slots=True)
class Stratum:
    """The clusters of one stratum.

    Attributes:
        points: (c,) each cluster's sum of item scores, or of differences of them.
        weight: (c,) each cluster's number of items.
    """

    points: Floats
    weight: Floats

    @property
    def value(self) -> float:
        return float(self.points.sum() / self.weight.sum())


def strata_of(values: Floats, clusters: Integers, strata: Integers) -> tuple[Stratum, ...]:
    """Items summed up by stratum and cluster.

    Args:
        values: (n,) scores or differences of scores.
        clusters: (n,) which cluster, 0 to c - 1. A cluster that lies in several strata is one in each.
        strata: (n,) which stratum, 0 to s - 1, each with an item.
    """
    found = []
    for one in range(int(strata.max()) + 1):
        mine = strata == one
        _, place = np.unique(clusters[mine], return_inverse=True)
        points = np.bincount(place, values[mine]).astype(np.float64)
        found.append(Stratum(points, np.bincount(place).astype(np.float64)))
    return tuple(found)


def estimate(strata: Sequence[Stratum]) -> float:
    """The mean over strata of points over weight."""
    return float(np.mean([s.value for s in strata]))


def stderr(strata: Sequence[Stratum]) -> float:
    """Its cluster-robust standard error; NaN where a stratum has a single cluster.

    With one stratum this is `stats.clustered_stderr`; strata are independent.
    """
    variances = []
    for s in strata:
        count = len(s.points)
        residual = s.points - s.value * s.weight
        scale = count / (count - 1) if count > 1 else np.nan
        variances.append(scale * float(residual @ residual) / float(s.weight.sum()) ** 2)
    return float(np.sqrt(np.sum(variances))) / len(strata)


def bootstrap(strata: Sequence[Stratum], rng: np.random.Generator, n: int) -> Floats:
    """The estimate in n resamples of the clusters of each stratum, with replacement.

    Returns:
        (n,) draws. Exact: no normal approximation, no weights other than how often a cluster was drawn.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993; clusters are drawn whole.
    """
    return np.mean([_resampled(s, rng, n) for s in strata], axis=0)


def _resampled(stratum: Stratum, rng: np.random.Generator, n: int) -> Floats:
    """One stratum. Clusters that add the same are one kind, drawn by multinomial counts while kinds are few."""
    kinds, often = np.unique(np.stack([stratum.points, stratum.weight]), axis=1, return_counts=True)
    count = len(stratum.points)
    draws = np.empty(n)
    by_kind = len(often) * DEAREST_KINDS < count
    step = max(1, CHUNK // (len(often) if by_kind else count))
    for start in range(0, n, step):
        size = min(step, n - start)
        if by_kind:
            counts = rng.multinomial(count, often / count, size=size).astype(np.float64)
            points, weight = counts @ kinds[0], counts @ kinds[1]
        else:
            drawn = rng.integers(count, size=(size, count), dtype=np.int32)
            points, weight = stratum.points[drawn].sum(axis=1), stratum.weight[drawn].sum(axis=1)
        draws[start : start + size] = points / weight
    return draws


def flipped(strata: Sequence[Stratum], rng: np.random.Generator, n: int) -> Floats:
    """A difference's n values when, in each cluster, which model is which is decided by a coin: no true difference."""
    return np.mean([_flipped(s, rng, n) for s in strata], axis=0)


def _flipped(stratum: Stratum, rng: np.random.Generator, n: int) -> Floats:
    sizes, often = np.unique(np.abs(stratum.points[stratum.points != 0]), return_counts=True)
    sums = np.zeros(n)
    step = max(1, CHUNK // n)
    for start in range(0, len(sizes), step):
        of = often[start : start + step]
        sums += (2 * rng.binomial(of, 0.5, size=(n, len(of))) - of) @ sizes[start : start + step]
    return sums / stratum.weight.sum()


def sign_flip_p(strata: Sequence[Stratum], nulls: Floats) -> float:
    """The two-sided p of a difference under `flipped`.

    Where all clusters that differ do so by the same amount it is exact and is McNemar's p.

    Source: Fisher, The Design of Experiments, 1935, section 21.
    """
    parts = np.concatenate([s.points[s.points != 0] / s.weight.sum() for s in strata])
    sizes = np.abs(parts)
    if not len(parts) or np.ptp(sizes) <= 1e-9 * sizes.max():
        return mcnemar(int((parts > 0).sum()), int((parts < 0).sum()))
    return null_p(estimate(strata), nulls, flip_variance(strata))


def flip_variance(strata: Sequence[Stratum]) -> float:
    """The variance of `flipped`, without drawing."""
    return float(np.sum([np.sum((s.points / s.weight.sum()) ** 2) for s in strata])) / len(strata) ** 2


def null_p(value: float, nulls: Floats, variance: float) -> float:
    """The p of `value` against draws without a difference that are sums of independent sign flips.

    The share of the draws that are as far from zero, counting the value itself; far out, where no draw reaches,
    Hoeffding's bound on such sums, 2 exp(-value^2 / 2 variance), is smaller and is an upper bound too.

    Source: Phipson and Smyth, 2010, for counting the value; Hoeffding, 1963, theorem 2.
    """
    far = np.abs(nulls) >= abs(value) * (1 - 1e-9)
    drawn = (1 + int(far.sum())) / (1 + len(nulls))
    return min(drawn, 2 * math.exp(-(value**2) / (2 * variance))) if variance > 0 else 1.0


def percentile_interval(draws: Floats, level: float) -> tuple[float, float]:
    """The central `level` of the draws."""
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)
