"""Whether two encoders agree on which images are near each other.

Source: Huh et al. 2024 (mutual k-NN, CKNNA).
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from kd_analysis.cka import Similarity
from kd_analysis.moments import Matrix, Rows

BLOCK = 2048  # images compared with all others at a time: memory is BLOCK x n


def mutual_knn(x: Rows, y: Rows, k: int = 10, metric: str = "cosine") -> Similarity:
    """Mean share of an image's k nearest others that both encoders name; k / (n - 1) by chance.

    Args:
        x, y: Features of the same images.
        k: Neighbours, the image itself not among them.
        metric: "cosine" or "l2".

    Raises:
        ValueError: If the metric is unknown or the numbers of rows differ.
    """
    return _overlap(x, y, k, metric, jaccard=False)


def jaccard_knn(x: Rows, y: Rows, k: int = 10, metric: str = "cosine") -> Similarity:
    """Mean of shared over all named neighbours; see `mutual_knn`."""
    return _overlap(x, y, k, metric, jaccard=True)


def cknna(x: Rows, y: Rows, k: int = 10) -> Similarity:
    """Debiased CKA where only pairs of images that are neighbours in both encoders count.

    No epsilon is added to the denominator, other than in the authors' code.
    """
    n = _paired(x, y)
    if reason := _too_few(n, k) or ("" if n >= 4 else f"CKNNA needs at least 4 images, got {n}"):
        return Similarity(math.nan, n, reason)
    K, L = (np.asarray(z, dtype=np.float64) for z in (x, y))
    K, L = K @ K.T, L @ L.T
    near_k, near_l = _nearest_mask(K, k), _nearest_mask(L, k)

    own = _hsic(near_k * K, near_k * K), _hsic(near_l * L, near_l * L)
    if not min(own) > 0:
        return Similarity(math.nan, n, "features do not vary over these images")
    both = near_k & near_l
    return Similarity(_hsic(both * K, both * L) / math.sqrt(own[0] * own[1]), n)


def _hsic(K: Matrix, L: Matrix) -> float:
    """N (n - 3) HSIC_1 of matrices that need not be symmetric, as a mask of neighbours makes them; zero diagonals."""
    n = len(K)
    square = float(np.vdot(K, L.T))
    return square + float(K.sum() * L.sum()) / ((n - 1) * (n - 2)) - 2 / (n - 2) * float(K.sum(axis=0) @ L.sum(axis=1))


def _overlap(x: Rows, y: Rows, k: int, metric: str, *, jaccard: bool) -> Similarity:
    if metric not in ("cosine", "l2"):
        raise ValueError(f"Expected the metric cosine or l2, got {metric!r}.")
    n = _paired(x, y)
    if reason := _too_few(n, k):
        return Similarity(math.nan, n, reason)
    x, y = _prepared(x, metric), _prepared(y, metric)
    total = 0.0
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        one, two = (_nearest(z, rows, k) for z in (x, y))
        shared = (one[:, :, None] == two[:, None, :]).any(axis=2).sum(axis=1)
        total += float((shared / (2 * k - shared if jaccard else k)).sum())
    return Similarity(total / n, n)


def _paired(x: Rows, y: Rows) -> int:
    if len(x) != len(y):
        raise ValueError(f"Expected features of the same images, got {len(x)} and {len(y)} rows.")
    return len(x)


def _too_few(n: int, k: int) -> str:
    if k < 1:
        raise ValueError(f"Expected at least 1 neighbour, got {k}.")
    return "" if n > k else f"{k} neighbours need more than {k} images, got {n}"


def _prepared(x: Rows, metric: str) -> Rows:
    x = np.asarray(x, dtype=np.float64)
    if metric == "l2":
        return np.asarray(x - x.mean(axis=0))
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.where(norms > 0, norms, 1))


def _nearest(x: Rows, rows: slice, k: int) -> Int[np.ndarray, "b k"]:
    """The k nearest others of some rows. For unit rows the largest product is the smallest distance."""
    closeness: Float[np.ndarray, "b n"] = 2 * x[rows] @ x.T - np.einsum("nd,nd->n", x, x)
    closeness[np.arange(len(closeness)), np.arange(rows.start, rows.stop)] = -np.inf
    return np.argpartition(-closeness, k - 1, axis=1)[:, :k]


def _nearest_mask(K: Matrix, k: int) -> Bool[np.ndarray, "n n"]:
    """For each row of a Gram matrix, its k largest entries off the diagonal."""
    K = K.copy()
    np.fill_diagonal(K, -np.inf)
    mask = np.zeros(K.shape, dtype=bool)
    np.put_along_axis(mask, np.argpartition(-K, k - 1, axis=1)[:, :k], True, axis=1)
    return mask
