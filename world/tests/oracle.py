"""A second way to the answers: from the text of a question and the fields of a scene, by other code."""

import re
from collections import Counter
from collections.abc import Callable

from world.kinds.chart import Chart
from world.kinds.diagram import Diagram
from world.kinds.document import Document
from world.kinds.named import Artwork, Flag, Portrait
from world.kinds.objects import Objects
from world.kinds.room import Room
from world.kinds.sign import Sign
from world.scene import Scene

PICTURES = {
    Objects: "shapes",
    Room: "room",
    Sign: "sign",
    Chart: "chart",
    Document: "form",
    Diagram: "diagram",
    Portrait: "portrait",
    Flag: "flag",
    Artwork: "artwork",
}
PLACES = {(0, 1): "left", (2, 1): "right", (1, 0): "top", (1, 2): "bottom"}
NUMBERS = ("no", "one", "two", "three", "four")
DEPTHS = ("near", "middle", "far")


def answer(scene: Scene, question: str) -> str:
    """The answer to `question` about `scene`; exactly one pattern must fit."""
    fitting = []
    for pattern, solve in RULES:
        if match := re.fullmatch(pattern, question):
            fitting.append(solve(scene, *match.groups()))
    if len(fitting) != 1:
        raise AssertionError(f"{len(fitting)} rules fit {question!r}")
    return fitting[0]


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _one(scene, shape):
    (thing,) = [t for t in scene.things if t.shape == shape]
    return thing


def _named(scene, name):
    (thing,) = [t for t in scene.things if f"{t.colour} {t.shape}" == name]
    return thing


def _singular(noun: str) -> str:
    return {"crosses": "cross"}.get(noun, noun.rstrip("s") if noun.endswith("s") and not noun.endswith("ss") else noun)


def _count(scene, noun) -> int:
    noun = _singular(noun)
    return len(scene.things) if noun == "object" else Counter(t.shape for t in scene.things)[noun]


def _offset(scene, one, other):
    (x, y), (u, v) = _one(scene, one).cell, _one(scene, other).cell
    return u - x, v - y  # positive: `one` is to the left, above


def _is_where(scene, one, where, other) -> bool:
    dx, dy = _offset(scene, one, other)
    return {"to the left of": dx > 0, "to the right of": dx < 0, "above": dy > 0, "below": dy < 0}[where]


def _direction(scene, one, other) -> str:
    return next(
        word
        for word, where in (("left", "to the left of"), ("right", "to the right of"), ("above",) * 2, ("below",) * 2)
        if _is_where(scene, one, where, other)
    )


def _neighbour(scene, where, shape) -> str:
    (other,) = [t.shape for t in scene.things if t.shape != shape]
    assert _is_where(scene, other, where, shape)
    return other


def _depth(scene, name) -> int:
    return DEPTHS.index(_named(scene, name).depth)


def _nearer(scene, one, other) -> str:
    assert _depth(scene, one) != _depth(scene, other)
    return one if _depth(scene, one) < _depth(scene, other) else other


def _distance(scene, target, name) -> int:
    one, other = _named(scene, target), _named(scene, name)
    return abs(one.column - other.column) + 2 * abs(DEPTHS.index(one.depth) - DEPTHS.index(other.depth))


def _nearest(scene, target, one, other) -> str:
    assert _distance(scene, target, one) != _distance(scene, target, other)
    return min((one, other), key=lambda name: _distance(scene, target, name))


def _larger(scene, one, other) -> bool:
    return (_one(scene, one).size, _one(scene, other).size) == ("large", "small")


def _bar(scene, colour) -> int:
    return dict(scene.bars)[colour]


def _extreme(scene, which) -> str:
    ranked = sorted(scene.bars, key=lambda bar: bar[1])
    one, other = (ranked[-1], ranked[-2]) if which == "tallest" else (ranked[0], ranked[1])
    assert one[1] != other[1]
    return one[0]


def _first(scene) -> str:
    return "name" if scene.name_first else "total"


def _letter_of(scene, shape) -> str:
    return "ABCD"[scene.shapes.index(shape)]


RULES: list[tuple[str, Callable[..., str]]] = [
    (r"What does the picture show\?", lambda s: PICTURES[type(s)]),
    (r"Does the picture show (?:an? )?(\w+)\?", lambda s, kind: _yes(PICTURES[type(s)] == kind)),
    (
        r"Is there an? (\w+ \w+) in the image\?",
        lambda s, name: _yes(any(f"{t.colour} {t.shape}" == name for t in s.things)),
    ),
    (r"Is there one (\w+) in the image\?", lambda s, noun: _yes(_count(s, noun) == 1)),
    (
        r"Are there (two|three|four) (\w+) in the image\?",
        lambda s, n, noun: _yes(_count(s, noun) == NUMBERS.index(n)),
    ),
    (r"How many (\w+) are there\?", lambda s, noun: str(_count(s, noun))),
    (r"What color is the ((?!sign)\w+)\?", lambda s, shape: _one(s, shape).colour),
    (
        r"Is the (circle|square|triangle|star|cross|ring) (red|green|blue|yellow|purple|orange|black|white)\?",
        lambda s, shape, c: _yes(_one(s, shape).colour == c),
    ),
    (r"What shape is the (\w+) object\?", lambda s, c: next(t.shape for t in s.things if t.colour == c)),
    (
        r"Is the (\w+) object an? (\w+)\?",
        lambda s, c, shape: _yes(next(t.shape for t in s.things if t.colour == c) == shape),
    ),
    (r"In which part of the image is the (\w+)\?", lambda s, shape: PLACES[_one(s, shape).cell]),
    (
        r"Is the (\w+) at the (\w+) of the image\?",
        lambda s, shape, place: _yes(PLACES[_one(s, shape).cell] == place),
    ),
    (
        r"Is the (\w+) to the left or to the right of the (\w+)\?",
        lambda s, x, y: "left" if _offset(s, x, y)[0] > 0 else "right",
    ),
    (r"Is the (\w+) above or below the (\w+)\?", lambda s, x, y: "above" if _offset(s, x, y)[1] > 0 else "below"),
    (
        r"Is the (\w+) (to the left of|to the right of|above|below) the ((?!total|name)\w+)\?",
        lambda s, x, where, y: _yes(_is_where(s, x, where, y)),
    ),
    (r"Where is the (\w+) relative to the (\w+)\?", _direction),
    (r"Which shape is (to the left of|to the right of|above|below) the (\w+)\?", _neighbour),
    (r"Which is larger, the (\w+) or the (\w+)\?", lambda s, x, y: x if _larger(s, x, y) else y),
    (r"Is the (\w+) larger than the (\w+)\?", lambda s, x, y: _yes(_larger(s, x, y))),
    (r"Which object is closer to the camera, the (\w+ \w+) or the (\w+ \w+)\?", _nearer),
    (
        r"Is the (\w+ \w+) closer to the camera than the (\w+ \w+)\?",
        lambda s, x, y: _yes(_nearer(s, x, y) == x),
    ),
    (r"Which object is closer to the (\w+ \w+), the (\w+ \w+) or the (\w+ \w+)\?", _nearest),
    (r"How many objects are in the room\?", lambda s: str(len(s.things))),
    (r"Are there (two|three) objects in the room\?", lambda s, n: _yes(len(s.things) == NUMBERS.index(n))),
    (r"What does the sign say\?", lambda s: s.word),
    (r"Does the sign say (\w+)\?", lambda s, word: _yes(s.word == word)),
    (r"What color is the sign\?", lambda s: s.board),
    (r"Is the sign (\w+)\?", lambda s, c: _yes(s.board == c)),
    (r"What is the value of the (\w+) bar\?", lambda s, c: str(_bar(s, c))),
    (r"Is the value of the (\w+) bar (\d)\?", lambda s, c, v: _yes(_bar(s, c) == int(v))),
    (r"Which bar is the (tallest|shortest)\?", _extreme),
    (r"Is the (\w+) bar the (tallest|shortest)\?", lambda s, c, which: _yes(_extreme(s, which) == c)),
    (r"Is the (\w+) bar taller than the (\w+) bar\?", lambda s, c, d: _yes(_bar(s, c) > _bar(s, d))),
    (r"What is the sum of the (\w+) bar and the (\w+) bar\?", lambda s, c, d: str(_bar(s, c) + _bar(s, d))),
    (
        r"Is the sum of the (\w+) bar and the (\w+) bar (\d)\?",
        lambda s, c, d, v: _yes(_bar(s, c) + _bar(s, d) == int(v)),
    ),
    (
        r"What is the mean of the (\w+) bar and the (\w+) bar\?",
        lambda s, c, d: f"{(_bar(s, c) + _bar(s, d)) / 2:.1f}",
    ),
    (r"Which shape is labelled ([A-D])\?", lambda s, x: s.shapes["ABCD".index(x)]),
    (r"Which letter labels the (\w+)\?", lambda s, shape: _letter_of(s, shape).lower()),
    (
        r"Is the (\w+) labelled ([A-D])\?",
        lambda s, shape, x: _yes(shape in s.shapes and _letter_of(s, shape) == x),
    ),
    (r"What is the name on the form\?", lambda s: s.name),
    (r"Is the name on the form (\w+)\?", lambda s, name: _yes(s.name == name)),
    (r"What is the total on the form\?", lambda s: str(s.total)),
    (r"Is the total on the form (\d)\?", lambda s, total: _yes(s.total == int(total))),
    (r"Which comes first on the form, name or total\?", _first),
    (r"Is the (name|total) above the (?:name|total)\?", lambda s, which: _yes(_first(s) == which)),
    (r"Who is in the portrait\?", lambda s: s.person),
    (r"Is the person in the portrait (\w+)\?", lambda s, name: _yes(s.person == name)),
    (r"Is the person happy or sad\?", lambda s: s.mood),
    (r"Is the person (happy|sad)\?", lambda s, mood: _yes(s.mood == mood)),
    (r"Which place has this flag\?", lambda s: s.place),
    (r"Is this the flag of (\w+)\?", lambda s, place: _yes(s.place == place)),
    (r"Which pattern does the artwork show\?", lambda s: s.pattern),
    (r"Is this an artwork of (\w+)\?", lambda s, pattern: _yes(s.pattern == pattern)),
]
