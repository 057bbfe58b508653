"""The minibatch estimate of CKA, for comparison with tools that use it. It depends on the batches; `cka.py` does not.

Source: Nguyen et al. 2021, eq. 3.
"""

import math

import numpy as np

from kd_analysis.cka import Similarity
from kd_analysis.gram import centred, linear_gram
from kd_analysis.moments import Blocks

WEIGHTS = ("equal", "pairs", "size")


def minibatch_cka(batches: Blocks, weights: str = "equal") -> Similarity:
    """The ratio of means of unbiased HSIC over batches; it aims at debiased CKA of all rows.

    Only a random partition is unbiased in its three means: a loader sorted by class compares classes with themselves.

    Args:
        batches: Rows of both sides, at least 4 in each batch.
        weights: How a batch counts: "equal" (torch_cka), "pairs": n (n - 3) (Nguyen's code), or "size": n.

    Raises:
        ValueError: If the weights are unknown, or a batch has fewer than 4 rows.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"Expected weights of {', '.join(WEIGHTS)}, got {weights!r}.")
    sums, rows = np.zeros(3), 0
    for x, y in batches:
        n = len(x)
        if n < 4 or len(y) != n:
            raise ValueError(
                f"Expected batches of at least 4 paired rows, got {n} and {len(y)}. Leave the last one out."
            )
        K, L = (centred(linear_gram(z), "debiased") for z in (x, y))
        weight = {"equal": 1, "pairs": n * (n - 3), "size": n}[weights] / (n * (n - 3))
        sums += weight * np.array([np.vdot(K, L), np.vdot(K, K), np.vdot(L, L)])
        rows += n
    if not sums[1] * sums[2] > 0:
        return Similarity(math.nan, rows, "features do not vary over these batches")
    return Similarity(float(sums[0] / math.sqrt(sums[1] * sums[2])), rows)
