"""CKA from the two n x n Gram matrices, of any kernel: the definition, cheaper for n < d, and the only way for RBF.

Source: Kornblith et al. 2019; Song et al. 2012; Szekely & Rizzo 2014 (U-centring).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kd_analysis.cka import Similarity, refuse_unknown
from kd_analysis.moments import Matrix, Rows

MEDIAN_ROWS = 5000  # the median distance is taken over at most so many rows
MEDIANS = ("offdiag", "full", "dist")


@dataclass(frozen=True)
class RbfKernel:
    """exp(-|x_i - x_j|^2 / (2 sigma^2)) of one encoder's rows, with the sigma that was used."""

    gram: Matrix
    sigma: float


def linear_gram(x: Rows) -> Matrix:
    """Inner products of the rows about their mean, in float64."""
    x = np.asarray(x, dtype=np.float64)
    x = x - x[0]
    x -= x.mean(axis=0)
    return np.asarray(x @ x.T)


def rbf_gram(x: Rows, fraction: float = 1.0, *, seed: int = 0, median: str = "offdiag") -> RbfKernel:
    """The RBF kernel with a bandwidth of `fraction` times the median distance between rows.

    Args:
        x: Features.
        fraction: Of the median; as it grows the kernel's CKA tends to the linear one.
        seed: Of the choice of `MEDIAN_ROWS` rows, where there are more.
        median: "offdiag": root of the median squared distance over i < j. "full": over all n^2 entries, the n zeros
            included (Kornblith's notebook). "dist": the median distance itself over i < j; differs for an even count.

    Raises:
        ValueError: If the median is unknown or zero.
    """
    if median not in MEDIANS:
        raise ValueError(f"Expected a median of {', '.join(MEDIANS)}, got {median!r}.")
    squared = squared_distances(x)
    sample = squared
    if len(x) > MEDIAN_ROWS:
        some = np.sort(np.random.default_rng(seed).choice(len(x), MEDIAN_ROWS, replace=False))
        sample = squared[np.ix_(some, some)]
    entries = sample if median == "full" else sample[np.triu_indices(len(sample), 1)]
    middle = float(np.median(np.sqrt(entries))) ** 2 if median == "dist" else float(np.median(entries))
    if not middle > 0:
        raise ValueError("Expected rows that differ; the median distance between them is 0.")
    sigma = fraction * math.sqrt(middle)
    return RbfKernel(np.exp(squared / (-2 * sigma**2)), sigma)


def squared_distances(x: Rows) -> Matrix:
    """|x_i - x_j|^2 with a zero diagonal, never negative, in float64."""
    gram = linear_gram(x)
    own = np.diag(gram)
    squared = np.maximum(own[:, None] + own - 2 * gram, 0)
    np.fill_diagonal(squared, 0)
    return np.asarray(squared)


def kernel_cka(K: Matrix, L: Matrix, estimator: str = "debiased") -> Similarity:
    """CKA of two kernels on the same rows.

    Returns:
        NaN with a reason for fewer than 4 rows (biased: 2) and for a kernel without structure.

    Raises:
        ValueError: If the two are not square of one size.
    """
    refuse_unknown(estimator)
    n = len(K)
    if not K.shape == L.shape == (n, n):
        raise ValueError(f"Expected two square matrices of one size, got {K.shape} and {L.shape}.")
    need = 4 if estimator == "debiased" else 2
    if n < need:
        return Similarity(math.nan, n, f"{estimator} CKA needs at least {need} images, got {n}")
    K, L = centred(K, estimator), centred(L, estimator)
    own = float(np.vdot(K, K)), float(np.vdot(L, L))
    for side, square in zip(("first", "second"), own, strict=True):
        if not square > 0:
            return Similarity(math.nan, n, f"the {side} encoder's features do not vary over these images")
    return Similarity(float(np.vdot(K, L)) / math.sqrt(own[0] * own[1]), n)


def gram_cka(x: Rows, y: Rows, estimator: str = "debiased") -> float:
    """Linear CKA from Gram matrices; the value alone."""
    return kernel_cka(linear_gram(x), linear_gram(y), estimator).value


def rbf_cka(x: Rows, y: Rows, fraction: float = 1.0, estimator: str = "debiased", *, seed: int = 0) -> Similarity:
    """CKA of RBF kernels, each with its own bandwidth; see `rbf_gram`."""
    return kernel_cka(rbf_gram(x, fraction, seed=seed).gram, rbf_gram(y, fraction, seed=seed).gram, estimator)


def centred(K: Float[np.ndarray, "n n"], estimator: str) -> Matrix:
    """Doubly centred (biased) or U-centred (debiased): then CKA is the cosine of the two matrices."""
    n = len(K)
    if estimator == "biased":
        return np.asarray(K - K.mean(axis=0) - K.mean(axis=1)[:, None] + K.mean())
    K = K.copy()
    np.fill_diagonal(K, 0.0)
    rows = K.sum(axis=1) / (n - 2)
    K += K.sum() / ((n - 1) * (n - 2))
    K -= rows
    K -= rows[:, None]
    np.fill_diagonal(K, 0.0)
    return K
