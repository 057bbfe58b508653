"""Figures as inline SVG, drawn by hand: equal data give equal bytes, and no library is needed. All text is
escaped and has no control characters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from kd_evalsuite.safe import one_line

COLOURS = ("#1f5673", "#b5532a", "#3f7a4a", "#6d5091", "#a8862c", "#4a6f7c", "#9a4664", "#5a5f66")
INK, MUTED, LINE, PALE = "#1d2329", "#6b7580", "#dfe3e6", "#eef1f3"
WIDTH, LABELS = 760, 132  # of a wide figure, and of its row labels


def colour(k: int) -> str:
    """The colour of the k-th model."""
    return COLOURS[k % len(COLOURS)]


@dataclass(frozen=True)
class Dot:
    """A value with its interval, in points."""

    value: float
    low: float
    high: float
    colour: str
    filled: bool = True


@dataclass(frozen=True)
class Line:
    """One row of a figure: its label, the dots in it, and a reference (chance) if there is one."""

    label: str
    dots: Sequence[Dot]
    chance: float | None = None
    strong: bool = False


class _Svg:
    def __init__(self, width: float, height: float, title: str) -> None:
        self.parts = [
            f'<svg viewBox="0 0 {width:g} {height:g}" role="img" xmlns="http://www.w3.org/2000/svg">',
            f"<title>{escape(one_line(title))}</title>",
        ]

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1, dash: str = "") -> None:
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width:g}"'
            f' stroke-linecap="round"{more}/>'
        )

    def rect(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" fill="{fill}"/>'
        )

    def circle(self, x: float, y: float, radius: float, stroke: str, fill: str) -> None:
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="{stroke}" stroke-width="1.6"/>'
        )

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", fill: str = INK, weight: int = 400) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-size="12"'
            f' font-weight="{weight}">{escape(one_line(text))}</text>'
        )

    def done(self) -> Markup:
        return Markup("\n".join([*self.parts, "</svg>"]))  # noqa: S704  # every text in it is escaped


def scores(lines: Sequence[Line], title: str) -> Markup:
    """Scores of several models, a row a task: dots with intervals on 0 to 100; a grey tick is chance."""
    step = 9.0
    heights = [max(22.0, 12 + step * len(line.dots)) for line in lines]
    svg = _Svg(WIDTH, sum(heights) + 30, title)
    left, right = LABELS, WIDTH - 14

    def at(value: float) -> float:
        return left + (right - left) * value / 100

    bottom = sum(heights) + 6
    for tick in range(0, 101, 20):
        svg.line(at(tick), 4, at(tick), bottom, LINE)
        svg.text(at(tick), bottom + 16, str(tick), anchor="middle", fill=MUTED)
    top = 4.0
    for line, height in zip(lines, heights, strict=True):
        middle = top + height / 2
        svg.text(left - 10, middle + 4, line.label, anchor="end", weight=600 if line.strong else 400)
        if line.chance is not None:
            svg.line(at(line.chance), top + 3, at(line.chance), top + height - 3, MUTED, 2, "1 4")
        for k, dot in enumerate(line.dots):
            y = middle + step * (k - (len(line.dots) - 1) / 2)
            svg.line(at(dot.low), y, at(dot.high), y, dot.colour, 2)
            svg.circle(at(dot.value), y, 3.4, dot.colour, dot.colour)
        top += height
    return svg.done()


def differences(lines: Sequence[Line], bands: Sequence[float], title: str, names: tuple[str, str]) -> Markup:
    """Differences, a row a task, about zero; the pale band is what could not have been detected.

    Args:
        lines: With one dot each; filled where a model is ahead.
        bands: The detectable difference of each row, NaN where there is none.
        title: For those who cannot see it.
        names: Who is ahead on the left, and on the right.
    """
    spans = [max(abs(d.low), abs(d.high)) for line in lines for d in line.dots] + [b for b in bands if b == b]
    limit, row = _round_up(max([*spans, 0.5])), 21.0
    left, right = LABELS, WIDTH - 14
    bottom = row * len(lines) + 24
    svg = _Svg(WIDTH, bottom + 22, title)

    def at(value: float) -> float:
        return left + (right - left) * (value + limit) / (2 * limit)

    svg.text(at(0) - 10, 13, f"← {names[0]} ahead", anchor="end", fill=MUTED)
    svg.text(at(0) + 10, 13, f"{names[1]} ahead →", fill=MUTED)
    for tick in (-1.0, -0.5, 0.5, 1.0):
        svg.line(at(tick * limit), 22, at(tick * limit), bottom, LINE)
        svg.text(
            at(tick * limit), bottom + 16, f"{tick * limit:+g}".replace("-", "\u2212"), anchor="middle", fill=MUTED
        )
    for k, (line, band) in enumerate(zip(lines, bands, strict=True)):
        y = 24 + row * (k + 0.5)
        if band == band:
            svg.rect(at(-band), y - 7, at(band) - at(-band), 14, PALE)
        svg.text(left - 10, y + 4, line.label, anchor="end", weight=600 if line.strong else 400)
        for dot in line.dots:
            svg.line(at(dot.low), y, at(dot.high), y, dot.colour, 2)
            svg.circle(at(dot.value), y, 4, dot.colour, dot.colour if dot.filled else "#fff")
    svg.line(at(0), 20, at(0), bottom, MUTED)
    svg.text(at(0), bottom + 16, "0", anchor="middle", fill=MUTED)
    return svg.done()


def bars(lines: Sequence[Line], title: str, width: float = 360) -> Markup:
    """Bars of several models, a block a category, with intervals."""
    thick, labels = 8.0, 150.0
    heights = [10 + thick * max(1, len(line.dots)) for line in lines]
    svg = _Svg(width, sum(heights) + 4, title)

    def at(value: float) -> float:
        return labels + (width - labels - 38) * value / 100

    top = 2.0
    for line, height in zip(lines, heights, strict=True):
        svg.text(labels - 8, top + height / 2 + 3, _short(line.label), anchor="end")
        for tick in (0, 50, 100):
            svg.line(at(tick), top, at(tick), top + height, LINE)
        for k, dot in enumerate(line.dots):
            y = top + 5 + thick * k
            svg.rect(at(0), y, at(dot.value) - at(0), thick - 2, dot.colour)
            svg.line(at(dot.low), y + 3, at(dot.high), y + 3, INK, 0.8)
        if len(line.dots) == 1:
            svg.text(width - 2, top + height / 2 + 3, f"{line.dots[0].value:.0f}", anchor="end", fill=MUTED)
        top += height
    return svg.done()


def _short(label: str, length: int = 22) -> str:
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _round_up(value: float) -> float:
    """The next round number whose half is round too."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if step * power >= value)
