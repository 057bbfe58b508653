"""Exact linear CKA in one pass: a mergeable state, the biased and the debiased estimate, and the jackknife's interval.

Rows are images; X (n x dx) and Y (n x dy) are the features of two encoders on the same images. With u, v the rows
about their means and a = |u|^2, b = |v|^2, everything follows from n, the means, three second moments, four third
moments (sums of a u, a v, b u, b v) and three sums (of a^2, a b, b^2). None of them needs an n x n matrix.

Source: Kornblith et al. 2019 (linear CKA), Song et al. 2012 (unbiased HSIC), Pebay 2008 (merging centred moments).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float

ESTIMATORS = ("debiased", "biased")
DEAD = 1e-12  # a spread this small against the second moment is rounding, not signal
Rows = Float[np.ndarray, "n d"]
Vector = Float[np.ndarray, " d"]
Matrix = Float[np.ndarray, "d1 d2"]


@dataclass(frozen=True)
class Similarity:
    """An estimate of CKA. `value` is NaN exactly when `reason` says why; never clamped, debiased may be negative."""

    value: float
    n: int
    reason: str = ""
    se: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Moments:
    """Centred moments of paired rows up to order four, in float64. `merge` is associative and commutative to rounding.

    `pilot_*` is a row near the data, subtracted before anything else, so that features far from zero lose no digits;
    `mean_*` is the mean about it.
    """

    n: int
    pilot_x: Vector
    pilot_y: Vector
    mean_x: Vector
    mean_y: Vector
    xx: Matrix
    yy: Matrix
    xy: Matrix
    axu: Vector  # sum of a u
    axv: Vector  # sum of a v
    bxu: Vector  # sum of b u
    bxv: Vector  # sum of b v
    aa: float
    ab: float
    bb: float

    @classmethod
    def of(cls, x: Rows, y: Rows) -> "Moments":
        """The moments of one block of at least one row.

        Raises:
            ValueError: If the blocks are not two matrices with equally many rows, or a value is not finite.
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) == 0:
            raise ValueError(f"Expected two matrices with the same images as rows, got shapes {x.shape} and {y.shape}.")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("Expected finite features, got NaN or infinity; look at the encoder that made them.")
        pilot_x, pilot_y = x[0].copy(), y[0].copy()
        mean_x, mean_y = (x - pilot_x).mean(axis=0), (y - pilot_y).mean(axis=0)
        u, v = x - pilot_x - mean_x, y - pilot_y - mean_y
        a, b = np.einsum("nd,nd->n", u, u), np.einsum("nd,nd->n", v, v)
        return cls(
            n=len(x), pilot_x=pilot_x, pilot_y=pilot_y, mean_x=mean_x, mean_y=mean_y,
            xx=u.T @ u, yy=v.T @ v, xy=u.T @ v, axu=a @ u, axv=a @ v, bxu=b @ u, bxv=b @ v,
            aa=float(a @ a), ab=float(a @ b), bb=float(b @ b),
        )  # fmt: skip

    def centred(self, x: Rows, y: Rows) -> tuple[Rows, Rows]:
        """The rows about the means of this state, in float64."""
        u = np.asarray(x, dtype=np.float64) - self.pilot_x - self.mean_x
        v = np.asarray(y, dtype=np.float64) - self.pilot_y - self.mean_y
        return u, v

    def save(self, path: Path) -> None:
        """Write every field to an `.npz` file."""
        arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Read what `save` wrote; merging into it is resuming."""
        with np.load(path, allow_pickle=False) as data:
            loaded = {f.name: data[f.name] for f in fields(cls)}
        scalars = {"n": int(loaded["n"])} | {name: float(loaded[name]) for name in ("aa", "ab", "bb")}
        return cls(**(loaded | scalars))


def _about(m: Moments, e: Vector, f: Vector) -> dict[str, np.ndarray | float]:
    """The moments of u + e and v + f, for the centred u and v of `m`."""
    e2, f2, A, B = float(e @ e), float(f @ f), float(np.trace(m.xx)), float(np.trace(m.yy))
    x_e, y_f, xy_f, yx_e = m.xx @ e, m.yy @ f, m.xy @ f, m.xy.T @ e
    return {
        "xx": m.xx + m.n * np.outer(e, e),
        "yy": m.yy + m.n * np.outer(f, f),
        "xy": m.xy + m.n * np.outer(e, f),
        "axu": m.axu + A * e + 2 * x_e + m.n * e2 * e,
        "axv": m.axv + A * f + 2 * yx_e + m.n * e2 * f,
        "bxu": m.bxu + B * e + 2 * xy_f + m.n * f2 * e,
        "bxv": m.bxv + B * f + 2 * y_f + m.n * f2 * f,
        "aa": m.aa + 4 * float(e @ m.axu) + 2 * e2 * A + 4 * float(e @ x_e) + m.n * e2 * e2,
        "bb": m.bb + 4 * float(f @ m.bxv) + 2 * f2 * B + 4 * float(f @ y_f) + m.n * f2 * f2,
        "ab": m.ab + 2 * float(f @ m.axv + e @ m.bxu) + f2 * A + e2 * B + 4 * float(e @ xy_f) + m.n * e2 * f2,
    }  # fmt: skip


def merge(one: Moments, two: Moments) -> Moments:
    """The moments of the rows of both.

    Raises:
        ValueError: If the widths differ.
    """
    if one.xy.shape != two.xy.shape:
        raise ValueError(f"Expected states of the same two widths, got {one.xy.shape} and {two.xy.shape}.")
    n = one.n + two.n
    gap_x = (two.pilot_x - one.pilot_x) + (two.mean_x - one.mean_x)
    gap_y = (two.pilot_y - one.pilot_y) + (two.mean_y - one.mean_y)
    first = _about(one, -gap_x * (two.n / n), -gap_y * (two.n / n))
    second = _about(two, gap_x * (one.n / n), gap_y * (one.n / n))
    return Moments(
        n=n,
        pilot_x=one.pilot_x,
        pilot_y=one.pilot_y,
        mean_x=one.mean_x + gap_x * (two.n / n),
        mean_y=one.mean_y + gap_y * (two.n / n),
        **{name: first[name] + second[name] for name in first},  # type: ignore[arg-type]
    )


def moments(blocks: Iterable[tuple[Rows, Rows]]) -> Moments:
    """One pass over blocks of rows, of any sizes down to one, in any order.

    Raises:
        ValueError: If there is no block.
    """
    total: Moments | None = None
    for x, y in blocks:
        block = Moments.of(x, y)
        total = block if total is None else merge(total, block)
    if total is None:
        raise ValueError("Expected at least one block of features, got none.")
    return total


# ---------------------------------------------------------------- estimates


def linear_cka(m: Moments, estimator: str = "debiased") -> Similarity:
    """Linear CKA of all rows in the state, without an interval.

    Args:
        estimator: "debiased" (Song's unbiased HSIC in all three places; comparable between numbers of images) or
            "biased" (Kornblith's; in [0, 1] and too high when n is not much larger than the width).

    Returns:
        NaN with a reason for fewer rows than the estimator needs (4 and 2) and for constant features.
    """
    _known(estimator)
    need = 4 if estimator == "debiased" else 2
    if m.n < need:
        return Similarity(math.nan, m.n, f"{estimator} CKA needs at least {need} images, got {m.n}")
    A, B = float(np.trace(m.xx)), float(np.trace(m.yy))
    squares = float(np.vdot(m.xx, m.xx)), float(np.vdot(m.xy, m.xy)), float(np.vdot(m.yy, m.yy))
    xx, xy, yy = (np.asarray(value) for value in squares)
    if estimator == "debiased":
        xx = _unbiased(xx, m.n, np.asarray(m.aa), np.asarray(A), np.asarray(A))
        xy = _unbiased(xy, m.n, np.asarray(m.ab), np.asarray(A), np.asarray(B))
        yy = _unbiased(yy, m.n, np.asarray(m.bb), np.asarray(B), np.asarray(B))
    for side, own, square in (("first", xx, squares[0]), ("second", yy, squares[2])):
        if own <= DEAD * square:
            return Similarity(math.nan, m.n, f"the {side} encoder's features do not vary over these images")
    return Similarity(float(xy / np.sqrt(xx * yy)), m.n)


def _unbiased(square: np.ndarray, n: int, fourth: np.ndarray, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """HSIC_1 times n (n - 3), from |M|^2, the sum of a b and the traces."""
    return square - n / (n - 2) * fourth + A * B / ((n - 1) * (n - 2))


def leave_one_out(m: Moments, x: Rows, y: Rows, estimator: str = "debiased") -> Float[np.ndarray, " n"]:
    """For each of these rows, CKA of all rows of the state but that one, in closed form: O(dx dy) a row.

    Args:
        m: The state of all rows.
        x, y: Some of those rows.
    """
    _known(estimator)
    n, k = m.n, m.n / (m.n - 1)
    u, v = m.centred(x, y)
    a, b = np.einsum("nd,nd->n", u, u), np.einsum("nd,nd->n", v, v)
    A, B = float(np.trace(m.xx)), float(np.trace(m.yy))
    sides = (
        (m.xx, u, u, a, a, A, A, m.aa, m.axu, m.axu),
        (m.xy, u, v, a, b, A, B, m.ab, m.bxu, m.axv),
        (m.yy, v, v, b, b, B, B, m.bb, m.bxv, m.bxv),
    )
    left = []
    for M, p, q, pp, qq, P, Q, fourth, third_p, third_q in sides:
        pMq = np.einsum("nd,nd->n", p @ M, q)
        square = float(np.vdot(M, M)) - 2 * k * pMq + k**2 * pp * qq
        if estimator == "debiased":
            shifted = (
                fourth
                + 2 / (n - 1) * (q @ third_q + p @ third_p)
                + (qq * P + pp * Q + 4 * pMq) / (n - 1) ** 2
                + n * pp * qq / (n - 1) ** 4
                - k**4 * pp * qq
            )
            square = _unbiased(square, n - 1, shifted, P - k * pp, Q - k * qq)
        left.append(square)
    xx, xy, yy = left
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(xy / np.sqrt(xx * yy))


def with_interval(
    m: Moments, blocks: Iterable[tuple[Rows, Rows]], estimator: str = "debiased", level: float = 0.95
) -> Similarity:
    """CKA with the jackknife's standard error and normal interval, from a second pass over the same rows.

    The bootstrap over rows is not offered: repeated images inflate both estimators.

    Raises:
        ValueError: If the blocks hold another number of rows than the state.
    """
    full = linear_cka(m, estimator)
    if full.reason or m.n < (5 if estimator == "debiased" else 3):
        return full
    left = np.concatenate([leave_one_out(m, x, y, estimator) for x, y in blocks])
    if len(left) != m.n:
        raise ValueError(f"Expected the {m.n} rows of the state again, got {len(left)}.")
    se = math.sqrt((m.n - 1) / m.n * float(((left - left.mean()) ** 2).sum()))
    half = NormalDist().inv_cdf(0.5 + level / 2) * se
    return Similarity(full.value, full.n, "", se, full.value - half, full.value + half)


def null_z(value: float, n: int) -> float:
    """How many standard deviations debiased CKA lies from no alignment.

    Under random pairing of the images it has mean 0 and variance 2 / (n (n - 3)) exactly, whatever the features. The
    tails are heavier than normal; ask for z > 4.
    """
    return value * math.sqrt(n * (n - 3) / 2) if n > 3 else math.nan


def gram_cka(x: Rows, y: Rows, estimator: str = "debiased") -> float:
    """The same number from the two n x n Gram matrices: the definition, kept as the reference and for n < d."""
    _known(estimator)
    K, L = (_centred_gram(np.asarray(z, dtype=np.float64), estimator) for z in (x, y))
    return float(np.vdot(K, L) / np.sqrt(np.vdot(K, K) * np.vdot(L, L)))


def _centred_gram(x: Rows, estimator: str) -> Matrix:
    n = len(x)
    K = (x - x.mean(axis=0)) @ (x - x.mean(axis=0)).T
    if estimator == "biased":
        return K - K.mean(axis=0) - K.mean(axis=1)[:, None] + K.mean()
    np.fill_diagonal(K, 0.0)
    rows = K.sum(axis=1) / (n - 2)
    K = K - rows - rows[:, None] + K.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(K, 0.0)
    return K


def _known(estimator: str) -> None:
    if estimator not in ESTIMATORS:
        raise ValueError(f"Expected an estimator of {', '.join(ESTIMATORS)}, got {estimator!r}.")
