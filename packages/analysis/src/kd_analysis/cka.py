"""Linear CKA, biased and debiased, from moments; its interval from the jackknife; and what it would be by chance.

Source: Kornblith et al. 2019 (linear CKA), Song et al. 2012 (unbiased HSIC), Efron & Stein 1981 (the jackknife).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from kd_analysis.moments import Blocks, Joint, Moments, Own, Rows, Vector
from kd_analysis.streaming import chunks

ESTIMATORS = ("debiased", "biased")
DEAD = 1e-12  # a spread this small against the second moment is rounding, not signal
ROUNDING = 1e-26  # and so is a variance this small against the squared distance from zero


@dataclass(frozen=True)
class Similarity:
    """An estimate of CKA. `value` is NaN exactly when `reason` says why; never clamped, debiased may be negative."""

    value: float
    n: int
    reason: str = ""
    se: float = math.nan
    low: float = math.nan
    high: float = math.nan


def linear_cka(m: Moments, estimator: str = "debiased") -> Similarity:
    """Linear CKA of all rows in the state, without an interval.

    Args:
        m: The state.
        estimator: "debiased" (Song's unbiased HSIC in all three places; comparable between numbers of images) or
            "biased" (Kornblith's; in [0, 1] and too high when n is not much larger than the width).

    Returns:
        NaN with a reason for fewer rows than the estimator needs (4 and 2) and for features that do not vary.
    """
    refuse_unknown(estimator)
    need = 4 if estimator == "debiased" else 2
    if m.n < need:
        return Similarity(math.nan, m.n, f"{estimator} CKA needs at least {need} images, got {m.n}")
    for side, one in (("first", m.x), ("second", m.y)):
        if is_dead(one, estimator):
            return Similarity(math.nan, m.n, f"the {side} encoder's features do not vary over these images")
    xx, yy = own_hsic(m.x, estimator), own_hsic(m.y, estimator)
    return Similarity(float(_hsic(m.xy, m.n, m.x.total, m.y.total, estimator) / np.sqrt(xx * yy)), m.n)


def own_hsic(one: Own, estimator: str) -> float:
    """HSIC of an encoder with itself, times (n - 1)^2 (biased) or n (n - 3) (debiased)."""
    return _hsic(one.joint, one.n, one.total, one.total, estimator)


def is_dead(one: Own, estimator: str = "biased") -> bool:
    """Whether what varies in an encoder's features is rounding alone."""
    still = one.total <= ROUNDING * one.n * float(one.pilot @ one.pilot)
    return still or own_hsic(one, estimator) <= DEAD * own_hsic(one, "biased")


def _hsic(joint: Joint, n: int, A: float, B: float, estimator: str) -> float:
    square = joint.square
    return square if estimator == "biased" else float(_unbiased(square, n, joint.ab, A, B))


def _unbiased(square: float | Vector, n: int, fourth: float | Vector, A: float | Vector, B: float | Vector) -> Vector:
    """HSIC_1 times n (n - 3), from |M|^2, the sum of a b and the traces."""
    return np.asarray(square - n / (n - 2) * np.asarray(fourth) + np.asarray(A) * B / ((n - 1) * (n - 2)))


# ---------------------------------------------------------------- the jackknife


def left_out(joint: Joint, n: int, x: Own, y: Own, u: Rows, v: Rows) -> dict[str, Vector]:
    """HSIC (as `own_hsic` scales it) of all rows but one, for each of these rows, by estimator; in closed form.

    Args:
        joint: Of x and y.
        n: Rows in all.
        x, y: The sides.
        u, v: Some of the rows, centred.
    """
    k, A, B = n / (n - 1), x.total, y.total
    a, b = np.einsum("nd,nd->n", u, u), np.einsum("nd,nd->n", v, v)
    through = np.einsum("nd,nd->n", u @ joint.m, v)
    square = joint.square - 2 * k * through + k**2 * a * b
    fourth = (
        joint.ab
        + 2 / (n - 1) * (v @ joint.av + u @ joint.bu)
        + (b * A + a * B + 4 * through) / (n - 1) ** 2
        + n * a * b / (n - 1) ** 4
        - k**4 * a * b
    )
    found = {"biased": square}
    if n > 4:
        found["debiased"] = _unbiased(square, n - 1, fourth, A - k * a, B - k * b)
    return found


def own_left_out(one: Own, blocks: Iterable[Rows]) -> dict[str, Vector]:
    """`left_out` of a side with itself, over all its rows; once for all pairs that it stands in."""
    parts = []
    for rows in blocks:
        u = one.centred(rows)
        parts.append(left_out(one.joint, one.n, one, one, u, u))
    return _concatenated(parts)


def leave_one_out(
    m: Moments,
    blocks: Blocks,
    own: tuple[Mapping[str, Vector], Mapping[str, Vector]] | None = None,
) -> dict[str, Float[np.ndarray, " n"]]:
    """For each row, CKA of all other rows, by estimator: exact, O(dx dy) a row.

    Args:
        m: The state of all rows.
        blocks: The same rows again.
        own: What `own_left_out` gave for both sides, where it is known.

    Raises:
        ValueError: If the blocks hold another number of rows than the state.
    """
    cross: list[dict[str, Vector]] = []
    sides: tuple[list[dict[str, Vector]], list[dict[str, Vector]]] = ([], [])
    for x, y in chunks(blocks):
        u, v = m.x.centred(x), m.y.centred(y)
        cross.append(left_out(m.xy, m.n, m.x, m.y, u, v))
        if own is None:
            sides[0].append(left_out(m.x.joint, m.n, m.x, m.x, u, u))
            sides[1].append(left_out(m.y.joint, m.n, m.y, m.y, v, v))
    xy = _concatenated(cross)
    xx, yy = own or (_concatenated(sides[0]), _concatenated(sides[1]))
    if len(xy.get("biased", ())) != m.n:
        raise ValueError(f"Expected the {m.n} rows of the state again, got {len(xy.get('biased', ()))}.")
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: xy[name] / np.sqrt(xx[name] * yy[name]) for name in xy}


def _concatenated(parts: Sequence[Mapping[str, Vector]]) -> dict[str, Vector]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def jackknife_se(left: Float[np.ndarray, " n"]) -> float:
    """The standard error from the n values that leave one image out; NaN where one of them does not exist."""
    n = len(left)
    return math.sqrt((n - 1) / n * float(((left - left.mean()) ** 2).sum()))


def estimate(full: Similarity, left: Float[np.ndarray, " n"], level: float = 0.95) -> Similarity:
    """`full` with the jackknife's standard error and normal interval."""
    if full.reason or not np.isfinite(left).all():
        return full
    se = jackknife_se(left)
    half = NormalDist().inv_cdf(0.5 + level / 2) * se
    return Similarity(full.value, full.n, "", se, full.value - half, full.value + half)


def with_interval(m: Moments, blocks: Blocks, estimator: str = "debiased", level: float = 0.95) -> Similarity:
    """CKA with the jackknife's interval, from a second pass over the same rows.

    The bootstrap over rows is not offered. A resample repeats images, a repeated image is perfectly similar to itself
    in both encoders, and so every resample lies above the truth: at n = 300 its 95 % intervals hold it in 0 to 72 %
    of the cases, the jackknife's in 92 to 98 %.

    Raises:
        ValueError: If the blocks hold another number of rows than the state.
    """
    full = linear_cka(m, estimator)
    if full.reason or m.n < (5 if estimator == "debiased" else 3):
        return full
    return estimate(full, leave_one_out(m, blocks)[estimator], level)


@dataclass(frozen=True)
class Difference:
    """CKA of one pair minus CKA of another on the same images, with the jackknife's interval.

    Attributes:
        value: The difference.
        correlation: Of the two, over leaving out each image in turn; what pairing gains.
    """

    value: float
    se: float
    low: float
    high: float
    correlation: float
    n: int


def difference(
    one: Similarity,
    two: Similarity,
    left_one: Float[np.ndarray, " n"],
    left_two: Float[np.ndarray, " n"],
    level: float = 0.95,
) -> Difference:
    """How much more alike one pair is than another, paired over images.

    Raises:
        ValueError: If the two stand on different numbers of images.
    """
    if len(left_one) != len(left_two):
        raise ValueError(f"Expected both on the same images, got {len(left_one)} and {len(left_two)}.")
    se = jackknife_se(left_one - left_two)
    half, value = NormalDist().inv_cdf(0.5 + level / 2) * se, one.value - two.value
    spread = jackknife_se(left_one) * jackknife_se(left_two)
    n = len(left_one)
    shared = (n - 1) / n * float(((left_one - left_one.mean()) * (left_two - left_two.mean())).sum())
    return Difference(value, se, value - half, value + half, shared / spread if spread else math.nan, n)


# ---------------------------------------------------------------- chance


def null_z(value: float, n: int) -> float:
    """How many standard deviations debiased CKA lies from no alignment.

    Under random pairing of the images it has mean 0 and variance 2 / (n (n - 3)) exactly, whatever the kernel. The
    tails are heavier than normal; ask for z > 4.
    """
    return value * math.sqrt(n * (n - 3) / 2) if n > 3 else math.nan


def refuse_unknown(estimator: str) -> None:
    if estimator not in ESTIMATORS:
        raise ValueError(f"Expected an estimator of {', '.join(ESTIMATORS)}, got {estimator!r}.")
