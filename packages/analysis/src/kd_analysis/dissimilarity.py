"""Similarities of two matrices of distances between images: RSA and distance correlation.

Source: Kriegeskorte et al. 2008 (RSA), Szekely et al. 2007 (distance correlation).
"""

import math

import numpy as np

from kd_analysis.cka import Similarity
from kd_analysis.gram import kernel_cka, squared_distances
from kd_analysis.moments import Matrix, Rows


def rsa(x: Rows, y: Rows, distance: str = "correlation", compare: str = "spearman") -> Similarity:
    """Correlation of the two encoders' distances over all pairs of images.

    Args:
        x, y: Features of the same images.
        distance: "correlation" (1 - Pearson's r of two images' features) or "euclidean".
        compare: "spearman" or "pearson".

    Returns:
        NaN with a reason for fewer than 3 images and for distances that do not vary.

    Raises:
        ValueError: If an argument is unknown.
    """
    if distance not in ("correlation", "euclidean") or compare not in ("spearman", "pearson"):
        raise ValueError(
            f"Expected correlation or euclidean and spearman or pearson, got {distance!r} and {compare!r}."
        )
    from scipy.stats import pearsonr, spearmanr  # slow to import

    n = len(x)
    if n < 3 or len(y) != n:
        return Similarity(math.nan, n, f"RSA needs at least 3 images on both sides, got {n} and {len(y)}")
    upper = np.triu_indices(n, 1)
    one, two = (_distances(z, distance)[upper] for z in (x, y))
    if not (np.isfinite(one).all() and np.isfinite(two).all() and np.ptp(one) > 0 and np.ptp(two) > 0):
        return Similarity(math.nan, n, "distances between these images do not vary")
    return Similarity(float((spearmanr if compare == "spearman" else pearsonr)(one, two).statistic), n)


def distance_correlation_squared(x: Rows, y: Rows) -> Similarity:
    """Biased CKA of the two matrices of distances, in [0, 1]."""
    return kernel_cka(np.sqrt(squared_distances(x)), np.sqrt(squared_distances(y)), "biased")


def _distances(x: Rows, distance: str) -> Matrix:
    if distance == "euclidean":
        return np.asarray(np.sqrt(squared_distances(x)))
    x = np.asarray(x, dtype=np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(1 - x @ x.T)
