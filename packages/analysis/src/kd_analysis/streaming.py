"""Moments in one pass over blocks of features, of any sizes down to one row, in any order; memory is flat in n."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kd_analysis.moments import Blocks, Joint, Matrix, Moments, Own, Rows, Vector

CHUNK = 1024  # rows multiplied at a time; shorter blocks are gathered first
# Where float32 products would cost digits of CKA, or gain no time, rows are multiplied in float64. They are not where
ROWS, COLUMNS = 512, 100  # a chunk has at least so many,
RANGE = (1e-24, 1e24)  # its largest |u|^2 lies within: products neither vanish nor overflow,
NEAR = 100.0  # its mean is no farther from the pilot, squared and in variances of the chunk,
SHARE = 1 / 32  # and no column has more of the spread: else few entries, and their rounding, decide.


def moments(blocks: Blocks) -> Moments:
    """One pass over blocks of rows, of any sizes down to one, in any order. Memory does not depend on n.

    float32 (and float16) features are multiplied in float32, `CHUNK` rows at a time, and added up in float64, after a
    pilot (the mean of the first rows) is subtracted in float64; that keeps CKA within 1e-8 of all-float64 arithmetic.
    float64 features, and chunks where it would not, are multiplied in float64.

    Raises:
        ValueError: If there is no row, a block is not two matrices with equally many rows, or a value is not finite.
    """
    stream: _Stream | None = None
    for x, y in chunks(blocks):
        stream = stream or _Stream(_Side(x), _Side(y))
        stream.add(x, y)
    if stream is None:
        raise ValueError("Expected at least one row of features, got none.")
    return stream.moments()


def own(blocks: Iterable[Rows]) -> Own:
    """One side's moments, once for all pairs; see `moments`."""
    side: _Side | None = None
    for rows, _ in chunks((block, block) for block in blocks):
        side = side or _Side(rows)
        side.add(rows)
    if side is None:
        raise ValueError("Expected at least one row of features, got none.")
    return side.own()


def paired(x: Own, y: Own, blocks: Blocks) -> Moments:
    """The moments of a pair whose sides are known: only what depends on both is computed.

    Raises:
        ValueError: If the blocks hold another number of rows than the sides.
    """
    cross = _Sums(len(x.mean), len(y.mean))
    for rows_x, rows_y in chunks(blocks):
        u, v = _Part.of(rows_x, x.centred(rows_x)), _Part.of(rows_y, y.centred(rows_y))
        cross.add(_product(u, v), u, v)
    if not cross.n == x.n == y.n:
        raise ValueError(f"Expected the same images on both sides, got {x.n}, {y.n} and {cross.n} rows.")
    return Moments(x, y, cross.joint())


def chunks(blocks: Blocks) -> Iterator[tuple[Rows, Rows]]:
    """The same rows in the same order, `CHUNK` at a time; the last chunk is what is left."""
    held: list[tuple[Rows, Rows]] = []
    count = 0
    for x, y in blocks:
        x, y = _checked(x, y)
        for start in range(0, len(x), CHUNK):
            held.append((x[start : start + CHUNK], y[start : start + CHUNK]))
            count += len(held[-1][0])
            if count >= CHUNK:
                whole = _joined(held)
                yield whole[0][:CHUNK], whole[1][:CHUNK]
                held, count = [(whole[0][CHUNK:], whole[1][CHUNK:])], count - CHUNK
    if count:
        yield _joined(held)


def _joined(held: list[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    held = [pair for pair in held if len(pair[0])]
    if len(held) == 1:
        return held[0]
    widths = sorted({(x.shape[1], y.shape[1]) for x, y in held})
    if len(widths) > 1:
        raise ValueError(f"Expected blocks of the same widths, got {widths}.")
    return np.concatenate([x for x, _ in held]), np.concatenate([y for _, y in held])


def _checked(x: Rows, y: Rows) -> tuple[Rows, Rows]:
    x, y = _real(x), _real(y)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"Expected two matrices with the same images as rows, got shapes {x.shape} and {y.shape}.")
    return x, y


def _real(z: Rows) -> Rows:
    z = np.asarray(z)
    return z if z.dtype in (np.float32, np.float64) else z.astype(np.float32 if z.dtype == np.float16 else np.float64)


@dataclass(frozen=True)
class _Part:
    """A chunk of one side about its pilot, in float64, and in the precision that it is multiplied in."""

    u: Rows
    a: Vector  # |u|^2
    factor: Rows

    @classmethod
    def of(cls, rows: Rows, u: Rows) -> "_Part":
        a = np.asarray(np.einsum("nd,nd->n", u, u))
        if not np.isfinite(a).all():
            raise ValueError("Expected finite features, got NaN or infinity; look at the encoder that made them.")
        return cls(u, a, u.astype(np.float32) if _single(rows, u, a) else u)


def _single(rows: Rows, u: Rows, a: Vector) -> bool:
    """Whether float32 products of these rows keep nine digits of CKA."""
    if (
        rows.dtype == np.float64
        or len(rows) < ROWS
        or rows.shape[1] < COLUMNS
        or not RANGE[0] < float(a.max()) < RANGE[1]
    ):
        return False
    spread, drift = np.einsum("nd,nd->d", u, u), u.mean(axis=0)
    total, gap = float(spread.sum()) / len(u), float(drift @ drift)
    return gap <= NEAR * (total - gap) and float(spread.max()) <= SHARE * float(spread.sum())


def _product(one: _Part, two: _Part) -> Matrix:
    if one.factor.dtype == two.factor.dtype:
        return np.asarray(one.factor.T @ two.factor)
    return np.asarray(one.u.T @ two.u)


class _Sums:
    """Running sums of a pair of sides."""

    def __init__(self, dx: int, dy: int, order: Literal["C", "F"] = "C") -> None:
        self.n, self.ab = 0, 0.0
        self.m, self.av, self.bu = np.zeros((dx, dy), order=order), np.zeros(dy), np.zeros(dx)

    def add(self, product: Matrix, one: _Part, two: _Part) -> None:
        self.n += len(one.u)
        self.m += product
        self.av += one.a @ two.u
        self.bu += two.a @ one.u
        self.ab += float(one.a @ two.a)

    def joint(self) -> Joint:
        return Joint(self.m, self.av, self.bu, self.ab)


class _Side:
    """Running sums of one side about its pilot, the mean of the first chunk."""

    def __init__(self, first: Rows) -> None:
        self.pilot = first.mean(axis=0, dtype=np.float64)
        self.sum = np.zeros(len(self.pilot))
        self.sums = _Sums(len(self.pilot), len(self.pilot), "F")  # as BLAS gives the upper triangle

    def add(self, rows: Rows) -> _Part:
        from scipy.linalg import blas

        if rows.shape[1] != len(self.pilot):
            raise ValueError(f"Expected features of width {len(self.pilot)} throughout, got {rows.shape[1]}.")
        with np.errstate(invalid="ignore"):  # infinity is refused below
            part = _Part.of(rows, rows - self.pilot)
        upper = (blas.ssyrk if part.factor.dtype == np.float32 else blas.dsyrk)(1.0, part.factor.T)
        self.sum += part.u.sum(axis=0)
        self.sums.add(upper, part, part)
        return part

    def own(self) -> Own:
        n, mean = self.sums.n, self.sum / self.sums.n
        whole = self.sums.m + np.triu(self.sums.m, 1).T
        raw = Joint(whole, self.sums.av, self.sums.bu, self.sums.ab)
        total = float(np.trace(whole))
        return Own(n, self.pilot, mean, _centred(raw, n, mean, mean, total, total))


class _Stream:
    """Running sums of both sides and of the pair."""

    def __init__(self, x: _Side, y: _Side) -> None:
        self.x, self.y, self.xy = x, y, _Sums(len(x.pilot), len(y.pilot))

    def add(self, x: Rows, y: Rows) -> None:
        one, two = self.x.add(x), self.y.add(y)
        self.xy.add(_product(one, two), one, two)

    def moments(self) -> Moments:
        x, y = self.x.own(), self.y.own()
        return Moments(x, y, _recentred(self.xy.joint(), x, y))


def _recentred(raw: Joint, x: Own, y: Own) -> Joint:
    """The sums about the means, from those about the pilots."""
    e2, f2 = float(x.mean @ x.mean), float(y.mean @ y.mean)
    return _centred(raw, x.n, x.mean, y.mean, x.total + x.n * e2, y.total + y.n * f2)


def _centred(raw: Joint, n: int, e: Vector, f: Vector, A: float, B: float) -> Joint:
    """The sums for u - e and v - f, where e and f are the means of u and v; A and B are the raw sums of a and b."""
    e2, f2, m_f, e_m = float(e @ e), float(f @ f), raw.m @ f, e @ raw.m
    return Joint(
        m=np.ascontiguousarray(raw.m - n * np.outer(e, f)),
        av=raw.av - A * f - 2 * e_m + 2 * n * e2 * f,
        bu=raw.bu - B * e - 2 * m_f + 2 * n * f2 * e,
        ab=raw.ab - 2 * float(f @ raw.av + e @ raw.bu) + f2 * A + e2 * B + 4 * float(e @ m_f) - 3 * n * e2 * f2,
    )
