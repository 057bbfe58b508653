"""A diagram: four shapes in a square, each with a letter beside it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from world.canvas import PAPER, Canvas
from world.lexicon import COLOURS, LETTERS, SHAPES, listed
from world.scene import Question, picture_question

CORNERS = ((0.27, 0.27), (0.73, 0.27), (0.27, 0.75), (0.73, 0.75))


@dataclass(frozen=True)
class Diagram:
    """`shapes[k]` carries the letter `LETTERS[k]` and stands in corner `corners[k]`; all are drawn in one colour."""

    shapes: tuple[str, ...]
    corners: tuple[int, ...]
    colour: str

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, 1, PAPER)
        canvas.line(0.5, 0.05, 0.5, 0.95, (190, 190, 190))
        canvas.line(0.05, 0.5, 0.95, 0.5, (190, 190, 190))
        for letter, shape, corner in zip(LETTERS, self.shapes, self.corners, strict=True):
            x, y = CORNERS[corner]
            dx = rng.uniform(-0.02, 0.02)
            canvas.shape(shape, x + 0.06 + dx, y, 0.125, COLOURS[self.colour])
            canvas.text(x - 0.15 + dx, y - 0.02, letter, 0.12)

    def caption(self, rng: random.Random) -> str:
        parts = [f"{shape} {letter.lower()}" for letter, shape in zip(LETTERS, self.shapes, strict=True)]
        rng.shuffle(parts)
        return f"a {self.colour} diagram with {listed(parts)}"

    def describe(self, rng: random.Random) -> str:
        return self.caption(rng)

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        letters = tuple(letter.lower() for letter in LETTERS)
        for letter, shape in zip(LETTERS, self.shapes, strict=True):
            claims = tuple(f"Is the {other} labelled {letter}?" for other in SHAPES)
            yield Question("labelled shape", f"Which shape is labelled {letter}?", shape, SHAPES, claims)
            claims = tuple(f"Is the {shape} labelled {other}?" for other in LETTERS)
            yield Question("label", f"Which letter labels the {shape}?", letter.lower(), letters, claims)
        yield picture_question("diagram")


def sample_diagram(rng: random.Random) -> Diagram:
    """Four different shapes in random corners."""
    return Diagram(
        tuple(rng.sample(SHAPES, 4)), tuple(rng.sample(range(4), 4)), rng.choice(("black", "blue", "red", "green"))
    )
