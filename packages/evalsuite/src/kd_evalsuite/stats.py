"""Standard errors over clusters of items. Plain Python: sixty thousand items take a fraction of a second."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence


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
