"""Shapes on a floor that recedes: which is closer to the camera, which is closer to another."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

from world.canvas import Canvas
from world.lexicon import COLOURS, SHAPES, a, listed
from world.scene import Question, picture_question

WALL, FLOOR = (196, 206, 220), (150, 124, 96)
HORIZON = 0.34
COLUMNS = ("on the far left", "on the left", "on the right", "on the far right")
DEPTHS = ("near", "middle", "far")
BASE = {"near": 0.93, "middle": 0.66, "far": 0.46}
RADIUS = {"near": 0.15, "middle": 0.1, "far": 0.06}


@dataclass(frozen=True, order=True)
class Standing:
    """A shape that stands on the floor in one of four columns, at one of three depths."""

    colour: str
    shape: str
    depth: str
    column: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Room:
    """Two or three shapes of different colours and shapes; a nearer one is drawn larger and lower."""

    things: tuple[Standing, ...]

    def __post_init__(self) -> None:
        for field in ("colour", "shape", "column"):
            if len({getattr(thing, field) for thing in self.things}) < len(self.things):
                raise ValueError(f"Expected things that differ in {field}, got {self.things}.")

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, HORIZON, WALL)
        canvas.rectangle(0, HORIZON, 1, 1, FLOOR)
        for end in (-0.8, 0.0, 1.0, 1.8):
            canvas.line(0.5 + (end - 0.5) * 0.25, HORIZON, end, 1, (120, 96, 72))
        for thing in sorted(self.things, key=lambda t: BASE[t.depth]):
            x = (thing.column * 2 + 1) / 8 + rng.uniform(-0.02, 0.02)
            r = RADIUS[thing.depth]
            canvas.ellipse(x, BASE[thing.depth], r, 0.3 * r, (90, 72, 54))
            canvas.shape(thing.shape, x, BASE[thing.depth] - r, r, COLOURS[thing.colour])

    def caption(self, rng: random.Random) -> str:
        parts = [f"{a(t.name)} {_far(t)}" for t in self.things]
        rng.shuffle(parts)
        return f"a room with {' and '.join(parts)}"

    def describe(self, rng: random.Random) -> str:
        parts = [f"{a(t.name)} {_far(t)} {COLUMNS[t.column]}" for t in self.things]
        rng.shuffle(parts)
        return f"a room with {listed(parts)}"

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        for one, other in permutations(self.things, 2):
            if one.depth != other.depth:
                pair = (one, other)
                closer = max(pair, key=lambda t: BASE[t.depth])
                text = f"Which object is closer to the camera, the {one.name} or the {other.name}?"
                claims = tuple(
                    f"Is the {x.name} closer to the camera than the {y.name}?" for x, y in (pair, pair[::-1])
                )
                yield Question("depth", text, closer.name, (one.name, other.name), claims)
        for target, one, other in permutations(self.things, 3):
            if _gap(target, one) != _gap(target, other):
                closer = one if _gap(target, one) < _gap(target, other) else other
                text = f"Which object is closer to the {target.name}, the {one.name} or the {other.name}?"
                yield Question("distance", text, closer.name, (one.name, other.name))
        for thing in self.things:
            claims = tuple(f"Is the {thing.shape} {colour}?" for colour in COLOURS)
            yield Question("colour", f"What color is the {thing.shape}?", thing.colour, tuple(COLOURS), claims)
        claims = tuple(f"Are there {word} objects in the room?" for word in ("two", "three"))
        yield Question("room count", "How many objects are in the room?", str(len(self.things)), ("2", "3"), claims)
        yield picture_question("room")


def _far(thing: Standing) -> str:
    return "in the middle" if thing.depth == "middle" else thing.depth


def _gap(one: Standing, other: Standing) -> float:
    """Distance on the floor, in columns; a step in depth counts as two columns."""
    return abs(one.column - other.column) + 2 * abs(DEPTHS.index(one.depth) - DEPTHS.index(other.depth))


def sample_room(rng: random.Random) -> Room:
    """Two or three shapes, each in a column of its own."""
    n = rng.choice((2, 2, 3))
    picks = zip(rng.sample(list(COLOURS), n), rng.sample(SHAPES, n), rng.sample(range(4), n), strict=True)
    return Room(tuple(sorted(Standing(c, s, rng.choice(DEPTHS), column) for c, s, column in picks)))
