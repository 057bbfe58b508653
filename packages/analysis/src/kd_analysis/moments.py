"""What two encoders' features on the same images come to: moments up to order four, which merge and resume.

Rows are images; X (n x dx) and Y (n x dy) are features. With u, v the rows about their means and a = |u|^2, b = |v|^2,
every similarity of a linear kernel follows from n, the means, sums of u u', v v', u v' and a few sums with a and b.
None of them needs an n x n matrix. `streaming.py` computes them.

Source: Song et al. 2012 (what the unbiased HSIC needs), Chan et al. 1979 and Pebay 2008 (merging centred moments).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

Rows = Float[np.ndarray, "n d"]
Vector = Float[np.ndarray, " d"]
Matrix = Float[np.ndarray, "d1 d2"]
Blocks = Iterable[tuple[Rows, Rows]]


@dataclass(frozen=True)
class Joint:
    """Sums over centred rows u of one side and v of another (or the same), with a = |u|^2 and b = |v|^2; float64."""

    m: Matrix  # of u v'
    av: Vector  # of a v
    bu: Vector  # of b u
    ab: float

    @cached_property
    def square(self) -> float:
        """|m|^2."""
        return float(np.einsum("xy,xy->", self.m, self.m))

    def __add__(self, other: "Joint") -> "Joint":
        return Joint(self.m + other.m, self.av + other.av, self.bu + other.bu, self.ab + other.ab)

    def about(self, n: int, e: Vector, f: Vector, A: float, B: float) -> "Joint":
        """The sums for u + e and v + f; A and B are the sums of a and b."""
        e2, f2, m_f, e_m = float(e @ e), float(f @ f), self.m @ f, e @ self.m
        return Joint(
            m=self.m + n * np.outer(e, f),
            av=self.av + A * f + 2 * e_m + n * e2 * f,
            bu=self.bu + B * e + 2 * m_f + n * f2 * e,
            ab=self.ab + 2 * float(f @ self.av + e @ self.bu) + f2 * A + e2 * B + 4 * float(e @ m_f) + n * e2 * f2,
        )


@dataclass(frozen=True)
class Own:
    """One encoder's moments: what all pairs that it stands in share.

    Attributes:
        n: Rows.
        pilot: A row near the data, subtracted before anything else: features far from zero lose no digits.
        mean: About the pilot.
        joint: Of the rows with themselves.
    """

    n: int
    pilot: Vector
    mean: Vector
    joint: Joint

    @cached_property
    def total(self) -> float:
        """The sum of squared distances from the mean."""
        return float(np.trace(self.joint.m))

    def centred(self, rows: Rows) -> Rows:
        """Rows about this mean, in float64."""
        return np.asarray(rows, dtype=np.float64) - self.pilot - self.mean

    def moved(self, e: Vector) -> Joint:
        return self.joint.about(self.n, e, e, self.total, self.total)


@dataclass(frozen=True)
class Moments:
    """Centred moments of paired rows. `merge` is associative and commutative to rounding; `save` and `load` resume."""

    x: Own
    y: Own
    xy: Joint

    @property
    def n(self) -> int:
        return self.x.n

    def save(self, path: Path) -> None:
        """Write an `.npz` of plain arrays, about 8 (dx^2 + dy^2 + dx dy) bytes."""
        np.savez(
            path, n=np.asarray(self.n),
            pilot_x=self.x.pilot, pilot_y=self.y.pilot, mean_x=self.x.mean, mean_y=self.y.mean,
            xx=self.x.joint.m, yy=self.y.joint.m, xy=self.xy.m,
            axu=self.x.joint.av, axv=self.xy.av, bxu=self.xy.bu, bxv=self.y.joint.av,
            aa=np.asarray(self.x.joint.ab), ab=np.asarray(self.xy.ab), bb=np.asarray(self.y.joint.ab),
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Read what `save` wrote; merging into it is resuming.

        Raises:
            ValueError: If the file is not such a state.
        """
        if not path.is_file():
            raise FileNotFoundError(f"Expected a state at {path}, found none.")
        try:
            with np.load(path, allow_pickle=False) as data:
                s: dict[str, Any] = {name: data[name] for name in data.files}
            n = int(s["n"])
            x = Own(n, s["pilot_x"], s["mean_x"], Joint(s["xx"], s["axu"], s["axu"], float(s["aa"])))
            y = Own(n, s["pilot_y"], s["mean_y"], Joint(s["yy"], s["bxv"], s["bxv"], float(s["bb"])))
            found = cls(x, y, Joint(s["xy"], s["axv"], s["bxu"], float(s["ab"])))
        except Exception as error:  # of zip files, headers of arrays and compressed data; readers differ
            raise ValueError(f"{path}: expected a state as `analysis cka` writes it (.npz): {error}") from None
        if found.xy.m.shape != (len(x.mean), len(y.mean)) or x.joint.m.shape != (len(x.mean), len(x.mean)):
            raise ValueError(f"{path}: expected matrices of widths {len(x.mean)} and {len(y.mean)}, found others.")
        return found


def merge(one: Moments, two: Moments) -> Moments:
    """The moments of the rows of both.

    Raises:
        ValueError: If the widths differ.
    """
    if one.xy.m.shape != two.xy.m.shape:
        raise ValueError(f"Expected states of the same two widths, got {one.xy.m.shape} and {two.xy.m.shape}.")
    n = one.n + two.n
    ex, ey = _gap(one.x, two.x), _gap(one.y, two.y)
    parts = []
    for state, share in ((one, -two.n / n), (two, one.n / n)):
        fx, fy = share * ex, share * ey
        cross = state.xy.about(state.n, fx, fy, state.x.total, state.y.total)
        parts.append((state.x.moved(fx), state.y.moved(fy), cross))
    (x1, y1, xy1), (x2, y2, xy2) = parts
    x = Own(n, one.x.pilot, one.x.mean + ex * (two.n / n), x1 + x2)
    y = Own(n, one.y.pilot, one.y.mean + ey * (two.n / n), y1 + y2)
    return Moments(x, y, xy1 + xy2)


def _gap(one: Own, two: Own) -> Vector:
    return (two.pilot - one.pilot) + (two.mean - one.mean)
