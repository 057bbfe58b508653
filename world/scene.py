"""What a scene is, what can be asked about one, and how train and benchmark scenes are kept apart."""

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from world.canvas import Canvas

Split = str  # "train" or "test"
TEST_SHARE = 5  # one content in five belongs to the benchmarks, the others to training


@dataclass(frozen=True)
class Question:
    """A question about one picture.

    `choices` are all answers that a blind reader must hold equally likely; `answer` is one of them.
    """

    topic: str
    text: str
    answer: str
    choices: tuple[str, ...]


class Scene(Protocol):
    """One picture, before it is drawn: a frozen dataclass whose fields are its whole content."""

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        """Paint the scene; `rng` moves what the content leaves open (a few pixels here and there)."""

    def caption(self, rng: random.Random) -> str:
        """One English description, lower case, without a full stop."""

    def questions(self, rng: random.Random) -> Iterator[Question]:
        """Everything that can be asked about this scene."""


Sampler = Callable[[random.Random], Scene]


def stream(seed: int, *purpose: str | int) -> random.Random:
    """A generator that depends on all of its arguments and on nothing else, on every machine."""
    return random.Random("/".join(map(str, (seed, *purpose))))


def split_of(scene: Scene) -> Split:
    """The split that a content belongs to, whoever samples it: train and benchmark contents never meet."""
    return "test" if zlib.crc32(repr(scene).encode()) % TEST_SHARE == 0 else "train"


def sample(sampler: Sampler, split: Split, rng: random.Random) -> Scene:
    """A scene of `split`."""
    while True:
        scene = sampler(rng)
        if split_of(scene) == split:
            return scene


def ask(
    sampler: Sampler, topic: str, split: Split, rng: random.Random, answer_index: int | None = None
) -> tuple[Scene, Question]:
    """A scene of `split` and a question of `topic` about it, whose answer is uniform over its choices.

    The position of the answer among the choices is drawn first and scenes are sampled until one fits, so that neither
    a constant answer nor one guessed from the question alone does better than chance.
    """
    target = rng.random() if answer_index is None else None
    while True:
        scene = sample(sampler, split, rng)
        fitting = [
            q
            for q in scene.questions(rng)
            if q.topic == topic
            and q.choices.index(q.answer) == (int(target * len(q.choices)) if target is not None else answer_index)
        ]
        if fitting:
            return scene, rng.choice(fitting)
