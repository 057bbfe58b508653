"""What a scene is, what can be asked about one, and how train and benchmark scenes are kept apart."""

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from world.canvas import Canvas
from world.lexicon import PICTURES, a

Split = str  # "train" or "test"
TEST_SHARE = 5  # one content in five belongs to the benchmarks, the others to training


@dataclass(frozen=True)
class Question:
    """A question about one picture.

    Attributes:
        topic: Questions of a topic are balanced together: `answer` is uniform over `choices`, whatever the text says.
        text: The question, with no word on how to answer it.
        answer: One of `choices`.
        choices: All answers that a blind reader must hold equally likely.
        claims: For each choice the yes-or-no question that is true where the choice is the answer; empty if there are
            none.
    """

    topic: str
    text: str
    answer: str
    choices: tuple[str, ...]
    claims: tuple[str, ...] = ()

    @property
    def index(self) -> int:
        """The position of the answer among the choices."""
        return self.choices.index(self.answer)


def yes_no(question: Question, rng: random.Random) -> tuple[Question, Question]:
    """The true claim of `question` and one of the false ones, as questions of their own."""
    false = rng.choice([k for k in range(len(question.choices)) if k != question.index])
    topic, answers = f"{question.topic}?", ("yes", "no")
    return (
        Question(topic, question.claims[question.index], "yes", answers),
        Question(topic, question.claims[false], "no", answers),
    )


def picture_question(name: str) -> Question:
    """What kind of picture this is; `name` is one of `PICTURES`."""
    claims = tuple(f"Does the picture show {p if p == 'shapes' else a(p)}?" for p in PICTURES)
    return Question("picture", "What does the picture show?", name, PICTURES, claims)


class Scene(Protocol):
    """One picture, before it is drawn: a frozen dataclass whose fields are its whole content."""

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        """Paint the scene; `rng` moves what the content leaves open (a few pixels here and there)."""

    def caption(self, rng: random.Random) -> str:
        """One English description, lower case, without a full stop."""

    def describe(self, rng: random.Random) -> str:
        """A caption that holds all that any question asks for."""

    def questions(self, rng: random.Random) -> Iterator[Question]:
        """Everything that can be asked about this scene."""


AnyScene = TypeVar("AnyScene", bound=Scene)
Sampler = Callable[[random.Random], Scene]


def stream(seed: int, *purpose: str | int) -> random.Random:
    """A generator that depends on all of its arguments and on nothing else, on every machine."""
    return random.Random("/".join(map(str, (seed, *purpose))))


def split_of(scene: Scene) -> Split:
    """The split that a content belongs to, whoever samples it: train and benchmark contents never meet."""
    return "test" if zlib.crc32(repr(scene).encode()) % TEST_SHARE == 0 else "train"


def sample(sampler: Callable[[random.Random], AnyScene], split: Split, rng: random.Random) -> AnyScene:
    """A scene of `split`."""
    while True:
        scene = sampler(rng)
        if split_of(scene) == split:
            return scene
