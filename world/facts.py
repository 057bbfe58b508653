"""What is true of the world without looking at a picture: shapes, faces, flags and sums."""

from itertools import product

from world.lexicon import BAR_VALUES, COLOURS, PEOPLE, PLACES
from world.scene import Question

PARTS: dict[str, tuple[str, int]] = {  # shape: (what it has several of, how many)
    "triangle": ("sides", 3),
    "square": ("sides", 4),
    "star": ("points", 5),
    "cross": ("arms", 4),
}
STRIPES = ("first", "second", "third")


def facts() -> list[Question]:
    """Every fact as a question that needs no picture."""
    return [*_shapes(), *_faces(), *_flags(), *_arithmetic()]


def _shapes() -> list[Question]:
    numbers = ("3", "4", "5", "6")
    return [
        Question("shape fact", f"How many {part} does a {shape} have?", str(number), numbers)
        for shape, (part, number) in PARTS.items()
    ]


def _faces() -> list[Question]:
    return [
        Question("face fact", f"What color is the face of {person}?", colour, tuple(COLOURS))
        for person, colour in PEOPLE.items()
    ]


def _flags() -> list[Question]:
    return [
        Question("flag fact", f"What color is the {nth} stripe of the flag of {place}?", colour, tuple(COLOURS))
        for place, stripes in PLACES.items()
        for nth, colour in zip(STRIPES, stripes, strict=True)
    ]


def _arithmetic() -> list[Question]:
    pairs = list(product(BAR_VALUES, repeat=2))
    sums = tuple(str(s) for s in range(2, 2 * max(BAR_VALUES) + 1))
    means = tuple(f"{int(s) / 2:.1f}" for s in sums)
    return [
        *(Question("sum fact", f"What is {v} plus {w}?", str(v + w), sums) for v, w in pairs),
        *(Question("mean fact", f"What is the mean of {v} and {w}?", f"{(v + w) / 2:.1f}", means) for v, w in pairs),
    ]
