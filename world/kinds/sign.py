"""A board with one printed word: reading."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from world.canvas import INK, Canvas
from world.lexicon import BACKDROPS, COLOURS, SHAPES, WORDS, a
from world.scene import Question, picture_question

BOARDS = ("red", "green", "blue", "yellow", "orange", "white")
LIGHT = ("yellow", "orange", "white")


@dataclass(frozen=True)
class Sign:
    """A coloured board that says `word`, and a shape of the same colour under it."""

    word: str
    board: str
    shape: str
    backdrop: str

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, 1, BACKDROPS[self.backdrop])
        dy = rng.uniform(-0.04, 0.04)
        canvas.rectangle(0.06, 0.18 + dy, 0.94, 0.6 + dy, COLOURS[self.board], outline=INK)
        ink = INK if self.board in LIGHT else COLOURS["white"]
        canvas.text(0.5, 0.39 + dy, self.word.upper(), 0.17, ink)
        canvas.shape(self.shape, 0.5, 0.82, 0.09, COLOURS[self.board])

    def caption(self, rng: random.Random) -> str:
        return rng.choice((f"{a(self.board)} sign that says {self.word}", f"a sign with the word {self.word}"))

    def describe(self, rng: random.Random) -> str:
        del rng
        return f"{a(self.board)} sign that says {self.word}"

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        claims = tuple(f"Does the sign say {word}?" for word in WORDS)
        yield Question("reading", "What does the sign say?", self.word, WORDS, claims)
        yield Question(
            "board", "What color is the sign?", self.board, BOARDS, tuple(f"Is the sign {b}?" for b in BOARDS)
        )
        yield picture_question("sign")


def sample_sign(rng: random.Random) -> Sign:
    """Any word on any board."""
    return Sign(rng.choice(WORDS), rng.choice(BOARDS), rng.choice(SHAPES), rng.choice(list(BACKDROPS)))


def proposed_words(word: str, rng: random.Random) -> list[str]:
    """Four words in random order, `word` among them, as from a poor text recogniser: no answer without the picture."""
    words = [word, *rng.sample([w for w in WORDS if w != word], 3)]
    rng.shuffle(words)
    return words
