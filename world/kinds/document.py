"""A printed form with two fields: reading a value by its label."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from world.canvas import INK, PAPER, Canvas
from world.lexicon import PEOPLE, TOTALS
from world.scene import Question, picture_question

STRIPES = ((230, 230, 240), (240, 230, 225), (228, 240, 228))
NAMES = tuple(PEOPLE)


@dataclass(frozen=True)
class Document:
    """A page that gives a name and a total, in either order; `tint` colours its header."""

    name: str
    total: int
    name_first: bool
    tint: int

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, 1, PAPER)
        canvas.rectangle(0, 0, 1, 0.16, STRIPES[self.tint], outline=INK)
        canvas.text(0.5, 0.08, "FORM", 0.08)
        rows = [("NAME", self.name.upper()), ("TOTAL", str(self.total))]
        dy = rng.uniform(-0.02, 0.02)
        for (label, value), y in zip(rows if self.name_first else rows[::-1], (0.34, 0.72), strict=True):
            canvas.text(0.06, y - 0.07 + dy, label, 0.08, (90, 90, 90), anchor="lm")
            canvas.text(0.06, y + 0.1 + dy, value, 0.15, anchor="lm")
            canvas.line(0.05, y + 0.21 + dy, 0.95, y + 0.21 + dy, (120, 120, 120), 0.008)

    def caption(self, rng: random.Random) -> str:
        parts = [f"name {self.name}", f"total {self.total}"]
        rng.shuffle(parts)
        return f"a form with {' and '.join(parts)}"

    def describe(self, rng: random.Random) -> str:
        del rng
        rows = (f"name {self.name}", f"total {self.total}")
        rows = rows if self.name_first else rows[::-1]
        return f"a form with {rows[0]} then {rows[1]}"

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        claims = tuple(f"Is the name on the form {name}?" for name in NAMES)
        yield Question("form name", "What is the name on the form?", self.name, NAMES, claims)
        totals = tuple(map(str, TOTALS))
        claims = tuple(f"Is the total on the form {total}?" for total in totals)
        yield Question("form total", "What is the total on the form?", str(self.total), totals, claims)
        first = "name" if self.name_first else "total"
        claims = ("Is the name above the total?", "Is the total above the name?")
        yield Question("form order", "Which comes first on the form, name or total?", first, ("name", "total"), claims)
        yield picture_question("form")


def sample_document(rng: random.Random) -> Document:
    """Any name with any total."""
    return Document(rng.choice(NAMES), rng.choice(TOTALS), rng.random() < 0.5, rng.randrange(len(STRIPES)))
