"""Similarities up to rotation, and how many directions features fill, from the moments.

Source: Ding et al. 2021 and Williams et al. 2021 (Procrustes), Tang et al. 2020 (NBS), Roy & Vetterli 2007 (rank).
"""

import math

import numpy as np

from kd_analysis.cka import Similarity
from kd_analysis.moments import Moments, Own


def procrustes(m: Moments) -> Similarity:
    """|Mxy|_* / sqrt(tr Mxx tr Myy), in [0, 1]: the cosine after the best rotation; the same as NBS.

    The squared Procrustes distance of centred features of unit norm is 2 - 2 of it, the angle its arc cosine.
    """
    scale = math.sqrt(m.x.total * m.y.total)
    if not scale > 0:
        return Similarity(math.nan, m.n, "features do not vary over these images")
    return Similarity(float(np.linalg.svd(m.xy.m, compute_uv=False).sum()) / scale, m.n)


def participation_ratio(own: Own) -> float:
    """(tr M)^2 / |M|^2: how many directions carry the variance, in [1, d]; NaN for features that do not vary."""
    square = own.joint.square
    return own.total**2 / square if square > 0 else math.nan


def effective_rank(own: Own) -> float:
    """The exponential of the entropy of the spectrum, in [1, d]; NaN for features that do not vary."""
    values = np.linalg.eigvalsh(own.joint.m)
    p = values[values > 0] / values[values > 0].sum() if own.total > 0 else np.array([math.nan])
    return float(np.exp(-(p * np.log(p)).sum()))


def biased_by_chance(m: Moments) -> float:
    """What biased CKA is on average when images are paired at random: sqrt(PRx PRy) / (n - 1), exactly."""
    if m.n < 2:
        return math.nan
    return math.sqrt(participation_ratio(m.x) * participation_ratio(m.y)) / (m.n - 1)
