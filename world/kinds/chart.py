"""A bar chart with a scale: reading values, comparing bars, adding them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from world.canvas import INK, PAPER, Canvas
from world.lexicon import BAR_COLOURS, BAR_VALUES, COLOURS, a, listed
from world.scene import Question

LEFT, FLOOR, STEP = 0.16, 0.9, 0.155
VALUES = tuple(str(v) for v in BAR_VALUES)


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

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        values = dict(self.bars)
        for colour, value in self.bars:
            yield Question("value", f"What is the value of the {colour} bar?", str(value), VALUES)
        for kind, pick in (("tallest", max(values.values())), ("shortest", min(values.values()))):
            owners = [c for c, v in self.bars if v == pick]
            if len(owners) == 1:
                yield Question("extreme", f"Which bar is the {kind}?", owners[0], BAR_COLOURS)
        for (one, v), (other, w) in permutations(self.bars, 2):
            if v != w:
                text = f"Is the {one} bar taller than the {other} bar?"
                yield Question("compare", text, "yes" if v > w else "no", ("yes", "no"))
            if v + w in TWO_BAR_SUMS:
                text = f"What is the sum of the {one} bar and the {other} bar?"
                yield Question("sum", text, str(v + w), tuple(str(s) for s in TWO_BAR_SUMS))


TWO_BAR_SUMS = (4, 5, 6, 7, 8)


def sample_chart(rng: random.Random) -> Chart:
    """Three bars of different colours, each value equally likely."""
    return Chart(tuple((colour, rng.choice(BAR_VALUES)) for colour in rng.sample(BAR_COLOURS, 3)))
