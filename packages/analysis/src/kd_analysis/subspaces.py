"""Similarities up to a linear map: CCA, SVCCA, PWCCA and linear regression, all from the moments.

Source: Raghu et al. 2017 (SVCCA), Morcos et al. 2018 (PWCCA), Kornblith et al. 2019 (linear regression).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kd_analysis.cka import Similarity
from kd_analysis.moments import Matrix, Moments, Own, Vector

NULL = 1e-10  # directions with less than this share of the largest variance are rounding


@dataclass(frozen=True)
class _Space:
    """The directions of one side that are kept, each scaled to unit length over the images."""

    whiten: Matrix  # (d, k)

    @property
    def rank(self) -> int:
        return self.whiten.shape[1]


def cca(m: Moments) -> Similarity:
    """Mean canonical correlation over the smaller of the two ranks, in [0, 1]."""
    return _mean_correlation(m, _space(m.x), _space(m.y))


def svcca(m: Moments, variance: float = 0.99) -> Similarity:
    """`cca` of the principal components that hold this share of each side's variance."""
    return _mean_correlation(m, _space(m.x, variance), _space(m.y, variance))


def pwcca(m: Moments, by: str = "x") -> Similarity:
    """Canonical correlations weighted by how much of one side's features each canonical direction carries.

    Args:
        m: The state.
        by: Whose features give the weights: "x" or "y"; the measure is not symmetric.
    """
    if by not in ("x", "y"):
        raise ValueError(f"Expected weights by 'x' or 'y', got {by!r}.")
    x, y = _space(m.x), _space(m.y)
    if reason := _too_few(m, x, y):
        return Similarity(math.nan, m.n, reason)
    left, found, right = np.linalg.svd(x.whiten.T @ m.xy.m @ y.whiten, full_matrices=False)
    own, whiten, turned = (m.x, x.whiten, left) if by == "x" else (m.y, y.whiten, right.T)
    weights = np.abs((whiten @ turned).T @ own.joint.m).sum(axis=1)
    return Similarity(float(weights @ np.minimum(found, 1) / weights.sum()), m.n)


def linear_r2(m: Moments, predicted: str = "y") -> Similarity:
    """Share of one side's variance that a linear map of the other explains, on these same images; in [0, 1].

    Args:
        m: The state.
        predicted: "y" (from x) or "x" (from y).
    """
    if predicted not in ("x", "y"):
        raise ValueError(f"Expected 'x' or 'y' to be predicted, got {predicted!r}.")
    source, target, cross = (m.x, m.y, m.xy.m) if predicted == "y" else (m.y, m.x, m.xy.m.T)
    space = _space(source)
    if not target.total > 0 or not space.rank:
        return Similarity(math.nan, m.n, "features do not vary over these images")
    if m.n <= space.rank + 1:
        return Similarity(
            math.nan, m.n, f"a linear map of {space.rank} features fits {m.n} images exactly; it takes more images"
        )
    return Similarity(float(np.square(space.whiten.T @ cross).sum()) / target.total, m.n)


def _space(own: Own, variance: float = 1.0) -> _Space:
    values, vectors = np.linalg.eigh(own.joint.m)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > NULL * max(values[0], 0)
    if variance < 1 and kept.any():
        share = np.cumsum(values * kept) / values[kept].sum()
        kept &= np.arange(len(values)) <= int(np.argmax(share >= variance))
    return _Space(vectors[:, kept] / np.sqrt(values[kept]))


def _mean_correlation(m: Moments, x: _Space, y: _Space) -> Similarity:
    if reason := _too_few(m, x, y):
        return Similarity(math.nan, m.n, reason)
    return Similarity(float(canonical_correlations(m, x.whiten, y.whiten).mean()), m.n)


def canonical_correlations(m: Moments, x: Matrix, y: Matrix) -> Float[np.ndarray, " k"]:
    """From whitening maps of both sides, largest first."""
    found: Vector = np.linalg.svd(x.T @ m.xy.m @ y, compute_uv=False)
    return np.minimum(found, 1)


def _too_few(m: Moments, x: _Space, y: _Space) -> str:
    if not x.rank or not y.rank:
        return "features do not vary over these images"
    if m.n <= x.rank + y.rank:
        return f"{x.rank} and {y.rank} directions of {m.n} images correlate whatever they are; it takes more images"
    return ""
