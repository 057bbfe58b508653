"""Coloured shapes on a plain backdrop: existence, colour, shape, count, position, relation, size."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from world.canvas import Canvas
from world.lexicon import BACKDROPS, CELLS, COLOURS, EDGES, NUMBERS, SHAPES, SIZES, a, listed, plural
from world.scene import Question

RADIUS = {"small": 0.11, "large": 0.165}
JITTER = 0.02


@dataclass(frozen=True, order=True)
class Thing:
    """One shape. `cell` is its (column, row) in a 3 x 3 grid."""

    colour: str
    shape: str
    size: str
    cell: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Objects:
    """Up to four things in different cells, sorted."""

    backdrop: str
    things: tuple[Thing, ...]

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, 1, BACKDROPS[self.backdrop])
        for thing in self.things:
            x, y = ((c * 2 + 1) / 6 + rng.uniform(-JITTER, JITTER) for c in thing.cell)
            canvas.shape(thing.shape, x, y, RADIUS[thing.size], COLOURS[thing.colour])

    def caption(self, rng: random.Random) -> str:
        groups: dict[str, list[Thing]] = {}
        for thing in self.things:
            groups.setdefault(thing.name, []).append(thing)
        full = rng.random() < 0.4
        parts = [
            f"{NUMBERS[len(group) - 1]} {plural(name)}" if len(group) > 1 else _described(group[0], full)
            for name, group in groups.items()
        ]
        rng.shuffle(parts)
        return listed(parts)

    def questions(self, rng: random.Random) -> Iterator[Question]:
        yield from self._existence(rng)
        yield from self._attributes()
        yield from self._counts()
        yield from self._places()
        yield from self._relations()

    def _existence(self, rng: random.Random) -> Iterator[Question]:
        present = {t.name for t in self.things}
        absent = rng.choice([f"{c} {s}" for c in COLOURS for s in SHAPES if f"{c} {s}" not in present])
        for name, answer in [*((n, "yes") for n in sorted(present)), (absent, "no")]:
            yield Question("existence", f"Is there {a(name)} in the image?", answer, ("yes", "no"))

    def _attributes(self) -> Iterator[Question]:
        for thing in self.things:
            if sum(t.shape == thing.shape for t in self.things) == 1:
                yield Question("colour", f"What color is the {thing.shape}?", thing.colour, tuple(COLOURS))
            if sum(t.colour == thing.colour for t in self.things) == 1:
                yield Question("shape", f"What shape is the {thing.colour} object?", thing.shape, SHAPES)

    def _counts(self) -> Iterator[Question]:
        for shape in sorted({t.shape for t in self.things}):
            n = sum(t.shape == shape for t in self.things)
            yield Question("count", f"How many {plural(shape)} are there?", str(n), ("1", "2", "3", "4"))
        yield Question("count", "How many objects are there?", str(len(self.things)), ("1", "2", "3", "4"))

    def _places(self) -> Iterator[Question]:
        for thing in self._unique_shapes():
            if (place := CELLS[thing.cell]) in EDGES:
                yield Question("position", f"In which part of the image is the {thing.shape}?", place, EDGES)

    def _relations(self) -> Iterator[Question]:
        for one, other in permutations(self._unique_shapes(), 2):
            for axis, words in enumerate((("left", "right"), ("above", "below"))):
                if one.cell[axis] != other.cell[axis]:
                    answer = words[one.cell[axis] > other.cell[axis]]
                    link = "to the left or to the right of" if axis == 0 else "above or below"
                    yield Question("relation", f"Is the {one.shape} {link} the {other.shape}?", answer, words)
            if one.size != other.size:
                larger = one.shape if one.size == "large" else other.shape
                text = f"Which is larger, the {one.shape} or the {other.shape}?"
                yield Question("size", text, larger, (one.shape, other.shape))

    def _unique_shapes(self) -> list[Thing]:
        return [t for t in self.things if sum(o.shape == t.shape for o in self.things) == 1]


def _described(thing: Thing, full: bool) -> str:
    return f"a {thing.size} {thing.name} {where(thing.cell)}" if full else a(thing.name)


def where(cell: tuple[int, int]) -> str:
    """The place of `cell` with its preposition, as captions say it."""
    place = CELLS[cell]
    return {"center": "in the center", "left": "on the left", "right": "on the right"}.get(place, f"at the {place}")


def sample_objects(rng: random.Random) -> Objects:
    """One to four things; a third of the scenes hold several copies of one thing, which is what counting needs."""
    cells = rng.sample(sorted(CELLS), 4)
    if rng.random() < 0.35:
        n, extra = rng.randint(1, 4), rng.random() < 0.4
        colour, shape, size = rng.choice(list(COLOURS)), rng.choice(SHAPES), rng.choice(SIZES)
        things = [Thing(colour, shape, size, cell) for cell in cells[:n]]
        if extra and n < 4:
            things.append(Thing(*_other(rng, colour, shape), rng.choice(SIZES), cells[n]))
    else:
        n = rng.choice((1, 1, 2, 2, 3))
        colours, shapes = rng.sample(list(COLOURS), n), rng.sample(SHAPES, n)
        things = [Thing(c, s, rng.choice(SIZES), cell) for c, s, cell in zip(colours, shapes, cells, strict=False)]
    return Objects(rng.choice(list(BACKDROPS)), tuple(sorted(things)))


def _other(rng: random.Random, colour: str, shape: str) -> tuple[str, str]:
    """A colour and a shape that differ from the given ones."""
    return rng.choice([c for c in COLOURS if c != colour]), rng.choice([s for s in SHAPES if s != shape])
