"""A bar chart with a scale: reading values, comparing bars, adding them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from world.canvas import INK, PAPER, Canvas
from world.lexicon import BAR_COLOURS, BAR_VALUES, COLOURS, a, listed
from world.scene import Question, picture_question

LEFT, FLOOR, STEP = 0.16, 0.9, 0.155
VALUES = tuple(str(v) for v in BAR_VALUES)
TWO_BAR_SUMS = (4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Chart:
    """Three bars, each (colour, value); a grid line every unit, numbers along the left."""

    bars: tuple[tuple[str, int], ...]

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, 1, PAPER)
        for value in BAR_VALUES:
            canvas.line(LEFT, FLOOR - value * STEP, 0.98, FLOOR - value * STEP, (205, 205, 205), 0.006)
            canvas.text(0.08, FLOOR - value * STEP, str(value), 0.07)
        width = 0.2 + rng.uniform(-0.02, 0.02)
        for k, (colour, value) in enumerate(self.bars):
            x = LEFT + 0.05 + k * 0.27
            canvas.rectangle(x, FLOOR - value * STEP, x + width, FLOOR, COLOURS[colour], outline=INK)
        canvas.line(LEFT, 0.05, LEFT, FLOOR)
        canvas.line(LEFT, FLOOR, 0.98, FLOOR)

    def caption(self, rng: random.Random) -> str:
        del rng
        return f"a chart with {listed([f'{a(colour)} bar of {value}' for colour, value in self.bars])}"

    def describe(self, rng: random.Random) -> str:
        return self.caption(rng)

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        for colour, value in self.bars:
            claims = tuple(f"Is the value of the {colour} bar {v}?" for v in VALUES)
            yield Question("value", f"What is the value of the {colour} bar?", str(value), VALUES, claims)
        values = [value for _, value in self.bars]
        for kind, pick in (("tallest", max(values)), ("shortest", min(values))):
            if values.count(pick) == 1:
                claims = tuple(f"Is the {colour} bar the {kind}?" for colour in BAR_COLOURS)
                owner = self.bars[values.index(pick)][0]
                yield Question("extreme", f"Which bar is the {kind}?", owner, BAR_COLOURS, claims)
        for (one, v), (other, w) in permutations(self.bars, 2):
            yield from _two_bars(one, v, other, w)
        yield picture_question("chart")


def _two_bars(one: str, v: int, other: str, w: int) -> Iterator[Question]:
    """Questions on a bar of value `v` and another of value `w`."""
    if v != w:
        text = f"Is the {one} bar taller than the {other} bar?"
        yield Question("compare", text, "yes" if v > w else "no", ("yes", "no"))
    if v + w in TWO_BAR_SUMS:
        sums = tuple(str(s) for s in TWO_BAR_SUMS)
        claims = tuple(f"Is the sum of the {one} bar and the {other} bar {s}?" for s in sums)
        yield Question("sum", f"What is the sum of the {one} bar and the {other} bar?", str(v + w), sums, claims)
        means = tuple(f"{s / 2:.1f}" for s in TWO_BAR_SUMS)
        yield Question("mean", f"What is the mean of the {one} bar and the {other} bar?", f"{(v + w) / 2:.1f}", means)


def sample_chart(rng: random.Random) -> Chart:
    """Three bars of different colours, each value equally likely."""
    return Chart(tuple((colour, rng.choice(BAR_VALUES)) for colour in rng.sample(BAR_COLOURS, 3)))
