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
        labels: Item id -> (the label as published, the right one).
    """

    task: str
    about: str
    source: tuple[str, ...]
    labels: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]


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
    labels = {key: (tuple(one["was"]), tuple(one["gold"])) for key, one in found["items"].items()}
    return Errata(found["task"], found["about"], tuple(found["source"]), labels)


def correct(items: Sequence[Item], errata: Errata) -> Corrected:
    """The items with the right labels.

    Raises:
        DataError: If an item has neither the published label nor the right one: then these are other data.
    """
    kept: list[Item] = []
    changed: list[str] = []
    already: list[str] = []
    for item in items:
        was, right = errata.labels.get(item.id, (item.gold, item.gold))
        if item.gold not in (was, right):
            raise DataError(
                f"{errata.task} {item.id}: the errata expect the label {'/'.join(was)}, the data have "
                f"{'/'.join(item.gold)}; they are of other data. Score without --errata."
            )
        if item.id in errata.labels:
            (changed if item.gold == was else already).append(item.id)
        kept.append(dataclasses.replace(item, gold=right))
    return Corrected(tuple(kept), tuple(changed), tuple(already))
