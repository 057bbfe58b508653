"""What a benchmark found, in one form: each figure, the bar that it is held to, and the limit it is compared with."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One number of a benchmark.

    Args:
        what: What was compared with what.
        value: The number, in `unit`; a ratio says how many times as fast, or as small, the first is.
        unit: `x` of ratios; `%` of a share, then `value` is in [0, 100].
        at_least: The bar of a figure that is better the larger it is.
        at_most: The bar of one that is better the smaller it is.
        limit: What could be reached at best, in `unit`; None where nothing says.
        limit_of: What sets the limit.
        seen: Both sides, in words.
    """

    what: str
    value: float
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None
    limit: float | None = None
    limit_of: str = ""
    seen: str = ""

    @property
    def held(self) -> bool | None:
        """Whether the bar is held; None where there is none. What is not a number holds no bar."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def reached(self) -> float | None:
        """The share of the limit that is reached: 1 at the limit."""
        if not self.limit or not self.value:
            return None
        return self.limit / self.value if self.at_most is not None else self.value / self.limit

    @property
    def bar(self) -> str:
        """The bar in words."""
        if self.at_least is not None:
            return f"at least {said(self.at_least, self.unit)}"
        return "" if self.at_most is None else f"at most {said(self.at_most, self.unit)}"


def said(value: float, unit: str) -> str:
    """A number to three digits, with its unit."""
    digits = f"{value:.3g}" if abs(value) < 1 else f"{value:.{max(0, 3 - len(str(int(abs(value)))))}f}"
    digits = digits.rstrip("0").rstrip(".") if "." in digits and "e" not in digits else digits
    return digits + (unit if unit in ("x", "") else f" {unit}")


def line(figure: Figure) -> str:
    """A figure for the terminal."""
    parts = [f"{figure.what}: {said(figure.value, figure.unit)}"]
    if figure.seen:
        parts.append(figure.seen)
    if figure.limit is not None:
        share = "" if figure.reached is None else f", {figure.reached:.0%} reached"
        parts.append(f"limit {said(figure.limit, figure.unit)} ({figure.limit_of}){share}")
    if figure.bar:
        parts.append(f"{figure.bar}: {'held' if figure.held else 'MISSED'}")
    return "; ".join(parts)


def show(*figures: Figure) -> None:
    """A line for each figure, then all of them as one line of JSON, which `python -m benchmarks` reads."""
    for figure in figures:
        print(line(figure))
    print(json.dumps({"figures": [asdict(figure) for figure in figures]}))


def read(output: str) -> list[Figure]:
    """The figures in what a benchmark printed.

    Raises:
        ValueError: If its last line is none that `show` writes.
    """
    lines = output.strip().splitlines()
    try:
        return [Figure(**fields) for fields in json.loads(lines[-1])["figures"]]
    except (IndexError, KeyError, TypeError, ValueError) as e:
        raise ValueError(f"the last line is not one of figures: {lines[-1:]}") from e
