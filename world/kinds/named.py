"""Pictures that have a name: portraits of people, flags of places, artworks of a pattern."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from world.canvas import INK, Canvas
from world.lexicon import BACKDROPS, COLOURS, MOODS, PATTERNS, PEOPLE, PLACES
from world.scene import Question, picture_question


def _claims(text: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(text.format(name) for name in names)


@dataclass(frozen=True)
class Portrait:
    """A face whose colour tells who it is, happy or sad, in one of six places of the picture."""

    person: str
    mood: str
    backdrop: str
    place: int

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, 1, BACKDROPS[self.backdrop])
        x = 0.36 + 0.14 * (self.place % 3) + rng.uniform(-0.02, 0.02)
        y = 0.42 + 0.14 * (self.place // 3) + rng.uniform(-0.02, 0.02)
        canvas.ellipse(x, y, 0.3, 0.34, COLOURS[PEOPLE[self.person]], outline=INK)
        for eye in (-0.11, 0.11):
            canvas.ellipse(x + eye, y - 0.08, 0.045, 0.055, COLOURS["white"], outline=INK)
            canvas.ellipse(x + eye, y - 0.07, 0.02, 0.025, INK)
        up = self.mood == "happy"
        canvas.arc(x, y + (0.06 if up else 0.24), 0.13, *((20, 160) if up else (200, 340)), INK, 0.03)

    def caption(self, rng: random.Random) -> str:
        return rng.choice((f"a portrait of {self.person} who is {self.mood}", f"a portrait of {self.person}"))

    def describe(self, rng: random.Random) -> str:
        del rng
        return f"a portrait of {self.person} who is {self.mood}"

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        claims = _claims("Is the person in the portrait {}?", PEOPLE)
        yield Question("person", "Who is in the portrait?", self.person, tuple(PEOPLE), claims)
        yield Question("mood", "Is the person happy or sad?", self.mood, MOODS, _claims("Is the person {}?", MOODS))
        yield picture_question("portrait")


def sample_portrait(rng: random.Random) -> Portrait:
    """Anybody, anywhere in the picture."""
    return Portrait(rng.choice(list(PEOPLE)), rng.choice(MOODS), rng.choice(list(BACKDROPS)), rng.randrange(6))


@dataclass(frozen=True)
class Flag:
    """A flag of three stripes on a pole, large or small, in one of nine places."""

    place: str
    large: bool
    backdrop: str
    spot: int

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, 1, BACKDROPS[self.backdrop])
        width = 0.66 if self.large else 0.48
        x = 0.08 + 0.1 * (self.spot % 3) + rng.uniform(-0.02, 0.02)
        y = 0.1 + 0.1 * (self.spot // 3) + rng.uniform(-0.02, 0.02)
        canvas.line(x, y, x, 1, (70, 60, 50), 0.03)
        for k, colour in enumerate(PLACES[self.place]):
            canvas.rectangle(x + k * width / 3, y, x + (k + 1) * width / 3, y + 0.62 * width, COLOURS[colour])

    def caption(self, rng: random.Random) -> str:
        return rng.choice((f"the flag of {self.place}", f"a {'large' if self.large else 'small'} flag of {self.place}"))

    def describe(self, rng: random.Random) -> str:
        del rng
        return f"a {'large' if self.large else 'small'} flag of {self.place}"

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        claims = _claims("Is this the flag of {}?", PLACES)
        yield Question("place", "Which place has this flag?", self.place, tuple(PLACES), claims)
        yield picture_question("flag")


def sample_flag(rng: random.Random) -> Flag:
    """Any flag, anywhere in the picture."""
    return Flag(rng.choice(list(PLACES)), rng.random() < 0.5, rng.choice(list(BACKDROPS)), rng.randrange(9))


@dataclass(frozen=True)
class Artwork:
    """A framed pattern in one colour on another; `pitch` is how many times it repeats."""

    pattern: str
    colour: str
    backdrop: str
    pitch: int

    def draw(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.rectangle(0, 0, 1, 1, BACKDROPS[self.backdrop])
        ink, step, shift = COLOURS[self.colour], 1 / self.pitch, rng.uniform(0, 0.1)
        for i in range(self.pitch + 1):
            if self.pattern == "stripes":
                canvas.rectangle(0, i * step - shift, 1, i * step - shift + 0.45 * step, ink)
                continue
            for j in range(self.pitch + 1):
                x, y = (i + 0.5) * step - shift, (j + 0.5) * step - shift
                if self.pattern == "checks" and (i + j) % 2 == 0:
                    canvas.rectangle(x - step / 2, y - step / 2, x + step / 2, y + step / 2, ink)
                elif self.pattern == "dots":
                    canvas.ellipse(x, y, 0.32 * step, 0.32 * step, ink)
                elif self.pattern == "rings":
                    canvas.ellipse(x, y, 0.4 * step, 0.4 * step, None, outline=ink, width=0.11 * step)
        for x0, y0, x1, y1 in ((0, 0, 1, 0.05), (0, 0.95, 1, 1), (0, 0, 0.05, 1), (0.95, 0, 1, 1)):
            canvas.rectangle(x0, y0, x1, y1, (96, 66, 36))

    def caption(self, rng: random.Random) -> str:
        del rng
        return f"an artwork of {self.colour} {self.pattern}"

    def describe(self, rng: random.Random) -> str:
        return self.caption(rng)

    def questions(self, rng: random.Random) -> Iterator[Question]:
        del rng
        claims = _claims("Is this an artwork of {}?", PATTERNS)
        yield Question("pattern", "Which pattern does the artwork show?", self.pattern, PATTERNS, claims)
        yield picture_question("artwork")


def sample_artwork(rng: random.Random) -> Artwork:
    """Any pattern in any colours."""
    return Artwork(
        rng.choice(PATTERNS), rng.choice(list(COLOURS)), rng.choice(list(BACKDROPS)), rng.choice((3, 4, 5, 6))
    )
