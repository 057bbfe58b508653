"""CKA with the cells of each image as rows: the images, not the cells, are what was sampled.

Cells of an image are alike, so the closed forms for single rows do not hold. The interval leaves out whole groups of
images; a z is not given.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from kd_analysis.cka import Similarity, linear_cka
from kd_analysis.moments import Moments, merge
from kd_analysis.streaming import moments

GROUPS = 40  # of images, each left out once

Cells = Float[np.ndarray, "n c d"]


def group_states(blocks: Iterable[tuple[Cells, Cells]]) -> list[Moments]:
    """The moments of each block of images, every cell a row; the finer grid is averaged to the coarser one.

    Raises:
        ValueError: If a side's cells do not stand in a square.
    """
    states = []
    for x, y in blocks:
        edge = min(_edge(x), _edge(y))
        x, y = _averaged(x, edge), _averaged(y, edge)
        states.append(moments([(x.reshape(-1, x.shape[2]), y.reshape(-1, y.shape[2]))]))
    return states


def _edge(x: Cells) -> int:
    edge = math.isqrt(x.shape[1])
    if edge * edge != x.shape[1]:
        raise ValueError(f"Expected cells of a square grid, got {x.shape[1]} an image.")
    return edge


def _averaged(x: Cells, edge: int) -> Cells:
    """The means over `edge` x `edge` windows, which overlap where the grid does not divide."""
    n, cells, d = x.shape
    size = math.isqrt(cells)
    if size == edge:
        return x
    grid = x.reshape(n, size, size, d)
    windows = [slice(i * size // edge, -(-(i + 1) * size // edge)) for i in range(edge)]
    pooled = [grid[:, rows, columns].mean(axis=(1, 2)) for rows in windows for columns in windows]
    return np.stack(pooled, axis=1)


def cell_cka(states: Sequence[Moments], n_images: int, estimator: str, level: float = 0.95) -> Similarity:
    """CKA over all cells, `n` the number of images, with the interval of the jackknife over groups of images.

    Args:
        states: Of groups of equally many images.
        n_images: In all.
        estimator: See `cka.linear_cka`.
        level: Of the interval.
    """
    whole = linear_cka(merged(states), estimator)
    found = Similarity(whole.value, n_images, whole.reason)
    if found.reason or len(states) < 3:
        return found
    left = np.array([linear_cka(state, estimator).value for state in _without_each(states)])
    if not np.isfinite(left).all():
        return found
    g = len(left)
    se = math.sqrt((g - 1) / g * float(((left - left.mean()) ** 2).sum()))
    half = NormalDist().inv_cdf(0.5 + level / 2) * se
    return Similarity(found.value, n_images, "", se, found.value - half, found.value + half)


def merged(states: Sequence[Moments]) -> Moments:
    total = states[0]
    for state in states[1:]:
        total = merge(total, state)
    return total


def _without_each(states: Sequence[Moments]) -> Iterable[Moments]:
    """All but one, for each, from merges of what stands before and behind it."""
    behind: list[Moments | None] = [None]
    for state in reversed(states[1:]):
        behind.append(state if behind[-1] is None else merge(state, behind[-1]))
    before: Moments | None = None
    for state in states:
        rest = behind.pop()
        both = [part for part in (before, rest) if part is not None]
        yield merged(both)
        before = state if before is None else merge(before, state)
