"""The similarities beside CKA, by name. x is the student, y the teacher.

Those from the moments cost nothing more; the others need all rows at once and n x n matrices.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kd_analysis import dissimilarity, gram, neighbours, shape, subspaces
from kd_analysis.cka import Similarity
from kd_analysis.minibatch import minibatch_cka
from kd_analysis.moments import Moments, Rows

MOST = 10_000  # images that an n x n measure takes
BATCH = 250  # of the minibatch estimate


def _bare(value: float, n: int) -> Similarity:
    return Similarity(value, n, "" if math.isfinite(value) else "features do not vary over these images")


FROM_MOMENTS: Mapping[str, Callable[[Moments], Similarity]] = {
    "procrustes": shape.procrustes,
    "cca": subspaces.cca,
    "svcca": subspaces.svcca,
    "pwcca_student": lambda m: subspaces.pwcca(m, "x"),
    "pwcca_teacher": lambda m: subspaces.pwcca(m, "y"),
    "r2_teacher_from_student": lambda m: subspaces.linear_r2(m, "y"),
    "r2_student_from_teacher": lambda m: subspaces.linear_r2(m, "x"),
    "pr_student": lambda m: _bare(shape.participation_ratio(m.x), m.n),
    "pr_teacher": lambda m: _bare(shape.participation_ratio(m.y), m.n),
    "rank_student": lambda m: _bare(shape.effective_rank(m.x), m.n),
    "rank_teacher": lambda m: _bare(shape.effective_rank(m.y), m.n),
    "biased_by_chance": lambda m: _bare(shape.biased_by_chance(m), m.n),
}


def _batches(x: Rows, y: Rows, seed: int) -> Similarity:
    """Over one random partition; what is left of it is dropped."""
    order = np.random.default_rng(seed).permutation(len(x))
    size = min(BATCH, len(x))
    parts = [order[i : i + size] for i in range(0, len(x) - size + 1, size)]
    if size < 4:
        return Similarity(math.nan, len(x), f"debiased CKA needs at least 4 images, got {len(x)}")
    return minibatch_cka(((x[p], y[p]) for p in parts), "pairs")


FROM_ROWS: Mapping[str, Callable[[Rows, Rows, int], Similarity]] = {
    "rbf_debiased": lambda x, y, seed: gram.rbf_cka(x, y, seed=seed),
    "rbf_biased": lambda x, y, seed: gram.rbf_cka(x, y, estimator="biased", seed=seed),
    "mutual_knn": lambda x, y, seed: neighbours.mutual_knn(x, y),
    "jaccard_knn": lambda x, y, seed: neighbours.jaccard_knn(x, y),
    "cknna": lambda x, y, seed: neighbours.cknna(x, y),
    "rsa": lambda x, y, seed: dissimilarity.rsa(x, y),
    "distance_correlation_squared": lambda x, y, seed: dissimilarity.distance_correlation_squared(x, y),
    "minibatch": _batches,
}
MEASURES = (*FROM_MOMENTS, *FROM_ROWS)


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """The names, `all` spelled out.

    Raises:
        ValueError: If there is no measure of one of them.
    """
    chosen = MEASURES if list(names) == ["all"] else tuple(names)
    if strange := [name for name in chosen if name not in MEASURES]:
        raise ValueError(f"Expected measures of {', '.join(MEASURES)} or all, got {', '.join(strange)}.")
    return chosen


def measured(
    names: Sequence[str], state: Moments, rows: Callable[[], tuple[Rows, Rows]], seed: int
) -> dict[str, tuple[Similarity, dict[str, float]]]:
    """Each measure's value with what it was computed with: the bandwidths of RBF and its seed.

    Args:
        names: Of measures.
        state: The moments.
        rows: Gives both sides' rows; asked only for a measure that needs them.
        seed: Of the minibatch's partition, and of the sample that sets RBF's bandwidth.
    """
    found: dict[str, tuple[Similarity, dict[str, float]]] = {
        name: (FROM_MOMENTS[name](state), {}) for name in names if name in FROM_MOMENTS
    }
    others = [name for name in names if name in FROM_ROWS]
    if not others:
        return found
    if state.n > MOST:
        reason = f"needs n x n matrices, which stop at {MOST} images; set max_images"
        return found | {name: (Similarity(math.nan, state.n, reason), {}) for name in others}
    x, y = rows()
    for name in others:
        try:
            detail = _bandwidths(x, y, seed) if name.startswith("rbf") else {}
            found[name] = FROM_ROWS[name](x, y, seed), detail
        except ValueError as error:
            found[name] = Similarity(math.nan, len(x), str(error)), {}
    return found


def _bandwidths(x: Rows, y: Rows, seed: int) -> dict[str, float]:
    return {
        "sigma_student": gram.rbf_gram(x, seed=seed).sigma,
        "sigma_teacher": gram.rbf_gram(y, seed=seed).sigma,
        "seed": seed,
    }
