"""Two scenes that differ in one thing, and so in the answer to one question."""

import dataclasses
import random
from typing import Any

from world.scene import Question, Sampler, Scene, Split, split_of

TRIES = 60


def twin(
    scene: Scene, question: Question, sampler: Sampler, split: Split, rng: random.Random
) -> tuple[Scene, str] | None:
    """A scene of `split` with one field of one thing changed, and its different answer to the same `question`.

    None if `TRIES` changes gave none: a scene may have no such neighbour.
    """
    for _ in range(TRIES):
        try:
            other = _changed(scene, sampler(rng), rng)
        except ValueError:  # a change that cannot be drawn, such as two things in one place
            continue
        if split_of(other) != split:
            continue
        answers = [q.answer for q in other.questions(rng) if q.text == question.text]
        if answers and answers[0] != question.answer:
            return other, answers[0]
    return None


def _changed(scene: Any, donor: Any, rng: random.Random) -> Any:
    """`scene` with one field, or one field of one of its things (which are kept sorted), taken from `donor`."""
    name = rng.choice(dataclasses.fields(scene)).name
    own, given = getattr(scene, name), getattr(donor, name)
    if not isinstance(own, tuple):
        return dataclasses.replace(scene, **{name: given})
    k = rng.randrange(len(own))
    changed = _changed(own[k], rng.choice(given), rng) if dataclasses.is_dataclass(own[k]) else rng.choice(given)
    return dataclasses.replace(scene, **{name: tuple(sorted((*own[:k], changed, *own[k + 1 :])))})
