"""Questions dealt so that no answer is more likely than another: what makes a blind guess worthless."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping

from world.scene import Question, Sampler, Scene, Split, sample

Dealt = tuple[Scene, list[Question]]
PATIENCE = 100  # scenes in a row without a new one that has enough to ask


class Balance:
    """How often each answer of each topic has been used."""

    def __init__(self) -> None:
        self._used: Counter[tuple[str, int]] = Counter()

    def surplus(self, question: Question) -> int:
        """How many more times its answer has been used than the rarest answer of its topic."""
        counts = [self._used[question.topic, k] for k in range(len(question.choices))]
        return counts[question.index] - min(counts)

    def add(self, question: Question) -> None:
        """Count one use of its answer."""
        self._used[question.topic, question.index] += 1


def deal(
    sampler: Sampler, quotas: Mapping[str, int], split: Split, rng: random.Random, *, per_scene: int = 1
) -> list[Dealt]:
    """Scenes of `split` with questions, `quotas[topic]` of each topic.

    Within a topic every answer comes up equally often, give or take one, so that a constant answer does no better than
    chance; and since scenes are drawn alike for every answer, a guess from the text of the question does not either.

    Args:
        sampler: Draws scenes.
        quotas: The number of questions for each topic.
        split: Which contents may be used.
        rng: Where all choices come from.
        per_scene: The largest number of questions about one scene. At least two are asked where more than one is
            allowed, unless the balance forbids it.

    Returns:
        (scene, its questions), in random order. No scene comes twice as long as the split has others.
    """
    left, balance, dealt = Counter(quotas), Balance(), []
    seen: set[Scene] = set()
    misses = 0
    while total := left.total():
        scene = sample(sampler, split, rng)
        questions = _due(scene.questions(rng), left, balance, per_scene, rng)
        enough = min(2, per_scene, total) if misses < PATIENCE else 1
        if len(questions) < enough or (scene in seen and misses < PATIENCE):
            misses += 1
            continue
        misses = 0
        seen.add(scene)
        for question in questions:
            left[question.topic] -= 1
            balance.add(question)
        dealt.append((scene, questions))
    rng.shuffle(dealt)
    return dealt


def _due(
    questions: Iterable[Question], left: Counter[str], balance: Balance, at_most: int, rng: random.Random
) -> list[Question]:
    """Up to `at_most` questions of different topics whose answers are the rarest so far."""
    due = [q for q in questions if left[q.topic] > 0 and balance.surplus(q) == 0]
    rng.shuffle(due)
    by_topic = {q.topic: q for q in due}
    return list(by_topic.values())[:at_most]
