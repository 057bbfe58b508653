"""What every benchmark needs to make its items: dealt questions, options in balanced order, pictures."""

import random
from collections.abc import Iterable, Mapping
from typing import Any

from world.benchmarks.tables import Row
from world.deck import Dealt, deal
from world.kinds.catalogue import SAMPLERS
from world.picture import Pen
from world.scene import Question, Sampler, Scene, stream


def any_kind(rng: random.Random) -> Scene:
    """A scene of any kind, all kinds alike."""
    return rng.choice(list(SAMPLERS.values()))(rng)


def shares(total: int, names: Iterable[str]) -> dict[str, int]:
    """`total` spread over `names` as evenly as possible."""
    listed = list(names)
    return {name: total // len(listed) + (k < total % len(listed)) for k, name in enumerate(listed)}


def by_kind(total: int, topics: Mapping[str, tuple[str, *tuple[Any, ...]]]) -> dict[str, dict[str, int]]:
    """`total` spread over `topics`, sorted by the kind of picture each is asked about: the first of its values."""
    quotas: dict[str, dict[str, int]] = {}
    for topic, number in shares(total, topics).items():
        quotas.setdefault(topics[topic][0], {})[topic] = number
    return quotas


class Items:
    """The items of the benchmark `task`, all from the test split, a function of the seed alone."""

    def __init__(self, task: str, seed: int, pen: Pen) -> None:
        self.rng = stream(seed, "benchmark", task)
        self.pen = pen
        self._task, self._seed = task, seed

    def deal(self, sampler: Sampler, quotas: Mapping[str, int], per_scene: int = 1) -> list[Dealt]:
        """Balanced questions; see `world.deck.deal`."""
        return deal(sampler, quotas, "test", self.rng, per_scene=per_scene)

    def mixed(self, quotas: Mapping[str, Mapping[str, int]]) -> list[tuple[Scene, Question]]:
        """One balanced question a scene, `quotas[kind][topic]` of each, shuffled."""
        items = [
            (scene, questions[0])
            for kind, topics in quotas.items()
            for scene, questions in self.deal(any_kind if kind == "any" else SAMPLERS[kind], topics)
        ]
        self.rng.shuffle(items)
        return items

    def options(self, question: Question, at_most: int = 4) -> tuple[list[str], int]:
        """Options in the order of the question's choices with the answer among them, and its position.

        Answers are dealt evenly over the choices, and the others are drawn evenly, so no position is favoured.
        """
        others = [choice for choice in question.choices if choice != question.answer]
        size = min(at_most, len(question.choices))
        options = sorted([question.answer, *self.rng.sample(others, size - 1)], key=question.choices.index)
        return options, options.index(question.answer)

    def jpeg(self, scene: Scene, *index: str | int) -> bytes:
        """The picture with number `index` of this benchmark."""
        return self.pen.jpeg(scene, stream(self._seed, "benchmark", self._task, "picture", *index))

    def shuffled(self, rows: Iterable[Row]) -> list[Row]:
        """The same rows in random order."""
        listed = list(rows)
        self.rng.shuffle(listed)
        return listed
