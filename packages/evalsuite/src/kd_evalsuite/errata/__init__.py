"""Known wrong labels: one file a benchmark, with where each was reported; applied when asked for, and reported then."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from kd_evalsuite.items import DataError, Item


@dataclass(frozen=True, slots=True)
class Errata:
    """The wrong labels of one benchmark.

    Attributes:
        task: The benchmark.
        about: What is wrong, in words.
        source: Where it was reported.
        labels: By item id.
    """

    task: str
    about: str
    source: tuple[str, ...]
    labels: dict[str, "Label"]

    def wrong(self, items: Sequence[Item]) -> list[str]:
        """The items that are the ones meant and have the published label still."""
        return [i.id for i in items if (one := self.labels.get(i.id)) and one.meant(i) and i.gold == one.was]


@dataclass(frozen=True, slots=True)
class Label:
    """One wrong label: the question it belongs to, what was published, what is right."""

    question: str
    was: tuple[str, ...]
    right: tuple[str, ...]

    def meant(self, item: Item) -> bool:
        """Whether an item of this id is the one that the erratum is about."""
        return item.question.strip() == self.question


@dataclass(frozen=True, slots=True)
class Corrected:
    """Items with the right labels, which were changed, and which the data already had right."""

    items: tuple[Item, ...]
    changed: tuple[str, ...]
    already: tuple[str, ...]


def errata_of(task: str) -> Errata | None:
    """What is known about the labels of `task`; None if nothing is."""
    file = resources.files(__package__) / f"{task}.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    labels = {k: Label(v["question"], tuple(v["was"]), tuple(v["gold"])) for k, v in found["items"].items()}
    return Errata(found["task"], found["about"], tuple(found["source"]), labels)


def correct(items: Sequence[Item], errata: Errata) -> Corrected:
    """The items with the right labels.

    Raises:
        DataError: If an item is another question, or has neither the published label nor the right one.
    """
    kept: list[Item] = []
    changed: list[str] = []
    already: list[str] = []
    for item in items:
        label = errata.labels.get(item.id)
        if label is None:
            kept.append(item)
            continue
        if not label.meant(item) or item.gold not in (label.was, label.right):
            raise DataError(
                f"{errata.task} {item.id}: the errata expect {label.question!r} with the label {'/'.join(label.was)}, "
                f"the data have {item.question!r} with {'/'.join(item.gold)}; these are other data."
            )
        (changed if item.gold == label.was else already).append(item.id)
        kept.append(dataclasses.replace(item, gold=label.right))
    return Corrected(tuple(kept), tuple(changed), tuple(already))
