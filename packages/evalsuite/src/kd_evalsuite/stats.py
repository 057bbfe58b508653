"""Errors and tests in plain Python: a command that only lists things imports no numpy. Resampling: `resample.py`."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import NormalDist


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)


def clustered_stderr(values: Sequence[float], clusters: Sequence[Hashable], best: float = 1.0) -> float:
    """The standard error of the mean when items of a cluster vary together.

    The sum over clusters of the squared sum of residuals, times g / (g - 1) for g clusters, root, over n. With one item
    a cluster it is the usual sd / sqrt(n).

    Args:
        values: (n,) in [0, best].
        clusters: (n,) labels.
        best: The largest possible value; with a single cluster nothing can be estimated, and the largest possible
            standard error, best / 2, is returned.

    Source: Miller, Adding Error Bars to Evals, 2024, equation 4, with the finite-sample factor of inspect_ai.
    """
    centre = mean(values)
    sums: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - centre
    g = len(sums)
    if g < 2:
        return best / 2
    return math.sqrt(math.fsum(s * s for s in sums.values()) * g / (g - 1)) / len(values)


def sum_stderr(stderrs: Iterable[float]) -> float:
    """The standard error of a sum of independent estimates."""
    return math.sqrt(math.fsum(s * s for s in stderrs))


def score_interval(value: float, stderr: float, best: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """The normal interval of a score, cut to [0, best].

    Where all of n items scored nothing, or all scored `best`, their spread says nothing: the exact bound takes its
    place, the true score that gives such items once in 2 / (1 - level) times.

    Source: Clopper & Pearson, Biometrika 26, 1934, for 0 or n of n.
    """
    if stderr == 0 and value in (0, best):
        half = best * (1 - ((1 - level) / 2) ** (1 / n))
    else:
        half = NormalDist().inv_cdf(0.5 + level / 2) * stderr
    return max(0.0, value - half), min(best, value + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test, from how many units only one of two models got right.

    Twice the smaller tail of a binomial with p = 1/2, at most 1. With graded scores, counting where each is higher, the
    same number is the p of the sign test.

    Source: McNemar, Psychometrika 12, 1947, in the exact form.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    term = total = 1
    for i in range(k):
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, 2 * total / 2**n)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p of a family of tests, under the same names.

    Source: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def detectable(stderr: float, level: float = 0.95, power: float = 0.8) -> float:
    """The true difference that a two-sided test with this standard error finds with probability `power`.

    Source: Miller, Adding Error Bars to Evals, 2024, section 5.
    """
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)) * stderr
