"""Which numbers of items can have produced printed scores: the GRIM test, exact in integers.

Of n items a score is k / n. Printed with d decimals on a scale s it can only take the values round(s k / n, d); a score
that is none of them did not come from n items, and few numbers n explain a whole column.

Source: Brown and Heathers, The GRIM Test, Social Psychological and Personality Science 8, 2017.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.bool_]
MOST = 10**7  # of n, so that products stay far below 2^63


def printed_units(values: Sequence[Decimal], decimals: int) -> NDArray[np.int64]:
    """The values in units of the last printed digit.

    Raises:
        ValueError: If one has more decimals.
    """
    units = [v.scaleb(decimals) for v in values]
    if any(u != u.to_integral_value() for u in units):
        raise ValueError(f"Expected values with at most {decimals} decimals.")
    return np.array([int(u) for u in units], dtype=np.int64)


def explained(values: Sequence[Decimal], counts: Iterable[int], *, decimals: int, scale: int = 100) -> Table:
    """Whether each value can be k of n items, for each n.

    Halves may have been rounded either way.

    Args:
        values: As printed, in [0, scale].
        counts: The candidates for n, from 1 to 10^7.
        decimals: How many were printed.
        scale: What n of n right items is printed as.

    Returns:
        (values, counts).
    """
    v = printed_units(values, decimals)[:, None]
    n = np.array(list(counts), dtype=np.int64)[None, :]
    if n.size and not 0 < n.min() <= n.max() <= MOST:
        raise ValueError(f"Expected counts from 1 to {MOST}, got {n.min()} to {n.max()}.")
    best = scale * 10**decimals
    k = np.clip((2 * v * n + best) // (2 * best), 0, n)  # the nearest number of right items
    return np.asarray(np.abs(2 * (k * best - v * n)) <= n)


def luck(n: int, rows: int, *, decimals: int, scale: int = 100) -> float:
    """The probability that n explains this many values that have nothing to do with it: its power, small is strong.

    n + 1 of the scale's printed values are possible; from n = scale 10^decimals on all are, and nothing is shown.
    """
    return float(min(1.0, (n + 1) / (scale * 10**decimals + 1)) ** rows)
