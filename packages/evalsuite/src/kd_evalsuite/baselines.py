"""What no model is needed for: guesses, constant replies, the most frequent answer; and a model without the images.

A score means something only beside these. Each is scored by the protocol's own judge, the guess is exact.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_evalsuite.data import TaskData
from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Estimate, Metric
from kd_evalsuite.records import Prediction
from kd_evalsuite.score import judged_items, require_all
from kd_evalsuite.single import unit_of
from kd_evalsuite.tasks import task_named
from kd_evalsuite.text import LETTERS


@dataclass(frozen=True, slots=True)
class Baselines:
    """Scores of a task's main metric that need no model, in the metric's unit.

    Attributes:
        task: The benchmark.
        metric: Its main metric.
        unit: Percent, or points.
        best: The largest possible score.
        random: The expected score of a uniform guess among the options; None where no item has options.
        constant: The best of the constant replies, and which.
        frequent: Always the most frequent gold answer (a letter where there are options), and its share of the golds.
        blind: A model that was not shown the images, with its standard error; None if no such predictions were given.
    """

    task: str
    metric: str
    unit: str
    best: float
    random: float | None
    constant: tuple[str, float]
    frequent: tuple[str, float]
    blind: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        blind = {"value": self.blind[0], "stderr": self.blind[1]} if self.blind else None
        return {
            "task": self.task,
            "metric": self.metric,
            "unit": self.unit,
            "best": self.best,
            "random": self.random,
            "constant": {"reply": self.constant[0], "value": self.constant[1]},
            "most_frequent": {"reply": self.frequent[0], "value": self.frequent[1]},
            "blind": blind,
        }


def baselines(data: TaskData, protocol: str, blind: Mapping[str, Prediction] | None = None) -> Baselines:
    """The baselines of one task under a protocol.

    Args:
        data: The items.
        protocol: Whose judge and metric.
        blind: Predictions made without the images.

    Raises:
        DataError: If `blind` has not one prediction for each item.
    """
    task = task_named(data.key)
    metric = task.metrics_of(protocol)[0]

    def scored(reply: Callable[[Item], str]) -> Estimate:
        said = {i.id: Prediction(id=i.id, prediction=reply(i), tokens=0, seconds=0) for i in data.items}
        return metric.aggregate(judged_items(metric.judge, data.items, said))

    constants = {reply: scored(_always(reply)).value for reply in _constants(data.items)}
    best = max(constants, key=lambda reply: (constants[reply], reply))
    letter, words = _frequent(data.items)
    frequent = scored(lambda item: letter if item.choices else words)
    unit, scale = unit_of(frequent.best)
    reply = " / ".join(one for one in (letter, words) if one)
    return Baselines(
        task=data.key,
        metric=metric.name,
        unit=unit,
        best=scale * frequent.best,
        random=None if frequent.chance is None else scale * frequent.chance,
        constant=(best, scale * constants[best]),
        frequent=(reply, scale * frequent.value),
        blind=_blind(data, metric, blind, scale) if blind is not None else None,
    )


def _always(reply: str) -> Callable[[Item], str]:
    return lambda item: reply


def _blind(data: TaskData, metric: Metric, said: Mapping[str, Prediction], scale: float) -> tuple[float, float]:
    from pathlib import Path

    require_all(data, said, Path(f"{data.key}.jsonl"))
    estimate = metric.aggregate(judged_items(metric.judge, data.items, said))
    return scale * estimate.value, scale * estimate.stderr


def _constants(items: Sequence[Item]) -> list[str]:
    """Yes and No, or every letter that is an option somewhere; where all is open, the most frequent gold answer."""
    choices = {item.choices for item in items}
    if choices == {("Yes", "No")}:
        return ["Yes", "No"]
    width = max(map(len, choices))
    return [*LETTERS[:width]] if width else [_frequent(items)[1]]


def _frequent(items: Sequence[Item]) -> tuple[str, str]:
    """The most frequent gold letter, and the most frequent gold text of open questions; empty where there is none."""
    letters = Counter(item.gold[0] for item in items if item.choices)
    words = Counter(gold.strip().lower() for item in items if not item.choices for gold in set(item.gold))
    return _top(letters), _top(words)


def _top(counts: Counter[str]) -> str:
    return min(counts, key=lambda one: (-counts[one], one)) if counts else ""
