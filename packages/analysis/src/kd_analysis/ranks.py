"""Rank correlations with exact p for the handful of teachers that a study has."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

EXACT_UP_TO = 8  # 8! = 40320 orders
TIE = 1e-9


@dataclass(frozen=True)
class RankCorrelation:
    """A coefficient in [-1, 1] and its two-sided p under random pairing; `exact` if every order was tried."""

    value: float
    p: float
    n: int
    exact: bool


def spearman(x: Sequence[float], y: Sequence[float], rng: np.random.Generator | None = None) -> RankCorrelation:
    """Spearman's rho, ties at their mean rank. See `_tested` for `rng` and errors."""
    return _tested(_rho, rankdata(x), rankdata(y), rng)


def kendall(x: Sequence[float], y: Sequence[float], rng: np.random.Generator | None = None) -> RankCorrelation:
    """Kendall's tau-b. See `_tested` for `rng` and errors."""
    return _tested(_tau, np.asarray(x, dtype=float), np.asarray(y, dtype=float), rng)


def concordance(x: Sequence[float], y: Sequence[float]) -> tuple[int, int, int]:
    """Over all pairs of teachers: how often the better x has the better y, the worse y, and ties."""
    signs = [(x[i] - x[j]) * (y[i] - y[j]) for i, j in itertools.combinations(range(len(x)), 2)]
    return sum(s > 0 for s in signs), sum(s < 0 for s in signs), sum(s == 0 for s in signs)


def _tested(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator | None,
    n_permutations: int = 20_000,
) -> RankCorrelation:
    """Try every order of y up to `EXACT_UP_TO` pairs, random orders above.

    Raises:
        ValueError: If the lengths differ, there are fewer than 3 pairs, or more than `EXACT_UP_TO` and no `rng`.
    """
    if len(x) != len(y) or len(x) < 3:
        raise ValueError(f"Expected at least 3 pairs, got {len(x)} and {len(y)} values.")
    observed, n = statistic(x, y), len(x)
    if math.isnan(observed):
        return RankCorrelation(math.nan, math.nan, n, True)
    if n <= EXACT_UP_TO:
        values = [statistic(x, y[list(order)]) for order in itertools.permutations(range(n))]
        return RankCorrelation(observed, float(np.mean(np.abs(values) >= abs(observed) - TIE)), n, True)
    if rng is None:
        raise ValueError(f"Expected a numpy Generator for random orders of {n} > {EXACT_UP_TO} pairs, got none.")
    extreme = sum(abs(statistic(x, rng.permutation(y))) >= abs(observed) - TIE for _ in range(n_permutations))
    return RankCorrelation(observed, (extreme + 1) / (n_permutations + 1), n, False)


def _rho(x: np.ndarray, y: np.ndarray) -> float:
    u, v = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(u @ u) * float(v @ v))
    return float(u @ v) / scale if scale > 0 else math.nan


def _tau(x: np.ndarray, y: np.ndarray) -> float:
    upper = np.triu_indices(len(x), 1)
    u, v = (np.sign(np.subtract.outer(z, z))[upper] for z in (x, y))
    scale = math.sqrt(float(u @ u) * float(v @ v))
    return float(u @ v) / scale if scale > 0 else math.nan
