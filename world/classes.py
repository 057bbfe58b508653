"""A zero-shot classification set in CLIP_benchmark's webdataset layout: one coloured shape a picture."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from world.files import Member, write_tar, write_text
from world.kinds.objects import Objects, Thing, where
from world.lexicon import BACKDROPS, CELLS, COLOURS, SHAPES, SIZES
from world.picture import Pen
from world.scene import split_of, stream

CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


def templates() -> list[str]:
    """Prompts in the language of the captions: with and without size and place; `{c}` stands for the class."""
    return ["a {c}", *(f"a {size} {{c}} {where(cell)}" for size, cell in product(SIZES, sorted(CELLS)))]


def write_classes(folder: Path, *, images_per_class: int, seed: int, pen: Pen) -> None:
    """The whole set: names, templates and one shard of test pictures, classes taking turns."""
    write_text(folder / "classnames.txt", "\n".join(CLASSES) + "\n")
    write_text(folder / "zeroshot_classification_templates.txt", "\n".join(templates()) + "\n")
    write_text(folder / "test" / "nshards.txt", "1\n")
    write_tar(folder / "test" / "0.tar", _members(images_per_class, seed, pen))


def _members(images_per_class: int, seed: int, pen: Pen) -> Iterator[Member]:
    scenes = [_test_scenes(name, seed) for name in CLASSES]
    for turn, label in product(range(images_per_class), range(len(CLASSES))):
        key = f"s{turn * len(CLASSES) + label:07d}"
        scene = scenes[label][turn % len(scenes[label])]
        yield f"{key}.cls", str(label).encode()
        yield f"{key}.jpg", pen.jpeg(scene, stream(seed, "classes", label, turn))


def _test_scenes(name: str, seed: int) -> list[Objects]:
    """Every content of the test split that shows one `name` and nothing else, in random order."""
    colour, shape = name.split()
    scenes = [
        Objects(backdrop, (Thing(colour, shape, size, cell),))
        for backdrop, size, cell in product(BACKDROPS, SIZES, sorted(CELLS))
    ]
    kept = [scene for scene in scenes if split_of(scene) == "test"]
    stream(seed, "classes", name).shuffle(kept)
    return kept
