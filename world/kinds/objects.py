"""Coloured shapes on a plain backdrop: existence, colour, shape, count, position, relation, size."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from world.canvas import Canvas
from world.lexicon import BACKDROPS, CELLS, COLOURS, EDGES, NUMBERS, SHAPES, SIZES, a, listed, plural
from world.scene import Question, picture_question

RADIUS = {"small": 0.11, "large": 0.165}
JITTER = 0.02
COUNTS = ("1", "2", "3", "4")
RELATIONS = ("to the left of", "to the right of", "above", "below")


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

    def __post_init__(self) -> None:
        if len({thing.cell for thing in self.things}) < len(self.things):
            raise ValueError(f"Expected every thing in a cell of its own, got {self.things}.")

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

    def describe(self, rng: random.Random) -> str:
        parts = [_described(thing, full=True) for thing in self.things]
        rng.shuffle(parts)
        return listed(parts)

    def questions(self, rng: random.Random) -> Iterator[Question]:
        yield from self._existence(rng)
        yield from self._attributes()
        yield from self._counts()
        yield from self._places()
        yield from self._relations()
        yield picture_question("shapes")

    def _existence(self, rng: random.Random) -> Iterator[Question]:
        present = {t.name for t in self.things}
        absent = rng.choice([f"{c} {s}" for c in COLOURS for s in SHAPES if f"{c} {s}" not in present])
        for name, answer in [*((n, "yes") for n in sorted(present)), (absent, "no")]:
            yield Question("existence", f"Is there {a(name)} in the image?", answer, ("yes", "no"))

    def _attributes(self) -> Iterator[Question]:
        for thing in self.things:
            if sum(t.shape == thing.shape for t in self.things) == 1:
                claims = tuple(f"Is the {thing.shape} {colour}?" for colour in COLOURS)
                yield Question("colour", f"What color is the {thing.shape}?", thing.colour, tuple(COLOURS), claims)
            if sum(t.colour == thing.colour for t in self.things) == 1:
                claims = tuple(f"Is the {thing.colour} object {a(shape)}?" for shape in SHAPES)
                yield Question("shape", f"What shape is the {thing.colour} object?", thing.shape, SHAPES, claims)

    def _counts(self) -> Iterator[Question]:
        for shape in sorted({t.shape for t in self.things}):
            n = sum(t.shape == shape for t in self.things)
            yield Question("count", f"How many {plural(shape)} are there?", str(n), COUNTS, _how_many(shape))
        yield Question("total", "How many objects are there?", str(len(self.things)), COUNTS, _how_many("object"))

    def _places(self) -> Iterator[Question]:
        for thing in self._unique_shapes():
            if (place := CELLS[thing.cell]) in EDGES:
                claims = tuple(f"Is the {thing.shape} at the {edge} of the image?" for edge in EDGES)
                yield Question("position", f"In which part of the image is the {thing.shape}?", place, EDGES, claims)

    def _relations(self) -> Iterator[Question]:
        unique = self._unique_shapes()
        for one, other in permutations(unique, 2):
            for axis in (0, 1):
                if one.cell[axis] != other.cell[axis]:
                    yield from _along(axis, one, other, is_only_pair=len(self.things) == 2)
            if one.size != other.size:
                larger = one.shape if one.size == "large" else other.shape
                text = f"Which is larger, the {one.shape} or the {other.shape}?"
                yield Question("size", text, larger, (one.shape, other.shape), _larger(one.shape, other.shape))

    def _unique_shapes(self) -> list[Thing]:
        return [t for t in self.things if sum(o.shape == t.shape for o in self.things) == 1]


def _how_many(noun: str) -> tuple[str, ...]:
    return (f"Is there one {noun} in the image?", *(f"Are there {n} {plural(noun)} in the image?" for n in NUMBERS[1:]))


def _larger(one: str, other: str) -> tuple[str, str]:
    return f"Is the {one} larger than the {other}?", f"Is the {other} larger than the {one}?"


def _along(axis: int, one: Thing, other: Thing, *, is_only_pair: bool) -> Iterator[Question]:
    """Where `one` is relative to `other`: along one axis, and overall if they share the other axis' cell."""
    words, links = (("left", "right"), ("above", "below"))[axis], RELATIONS[2 * axis : 2 * axis + 2]
    side = int(one.cell[axis] > other.cell[axis])
    claims = tuple(f"Is the {one.shape} {link} the {other.shape}?" for link in links)
    choice = "to the left or to the right of" if axis == 0 else "above or below"
    yield Question("relation", f"Is the {one.shape} {choice} the {other.shape}?", words[side], words, claims)
    if one.cell[1 - axis] == other.cell[1 - axis]:
        text = f"Where is the {one.shape} relative to the {other.shape}?"
        claims = tuple(f"Is the {one.shape} {link} the {other.shape}?" for link in RELATIONS)
        yield Question("direction", text, words[side], ("left", "right", "above", "below"), claims)
    if is_only_pair:
        others = tuple(shape for shape in SHAPES if shape != other.shape)
        yield Question("neighbour", f"Which shape is {links[side]} the {other.shape}?", one.shape, others)


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
