"""Items to look at: which ones, and what was asked, shown, expected and answered."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kd_evalsuite.aligned import Aligned
from kd_evalsuite.data import TaskData, load_folder
from kd_evalsuite.items import DataError, Item, Picture
from kd_evalsuite.predictions import MANIFEST, read_manifest
from kd_evalsuite.resample import Floats
from kd_evalsuite.results import Result
from kd_evalsuite.tasks import EVERY
from kd_evalsuite.text import LETTERS


@dataclass(frozen=True)
class Answered:
    """What one model said to an item; `reply` is None where its predictions are not at hand."""

    model: str
    score: float
    reply: str | None
    answer: str | None


@dataclass(frozen=True)
class Exhibit:
    """One item; `prompt` and `gold` are None where the benchmark's data are not at hand."""

    task: str
    id: str
    cluster: str
    category: str
    prompt: str | None
    gold: str | None
    answered: tuple[Answered, ...]
    pictures: tuple[Picture, ...] = ()


# ---------------------------------------------------------------- which


def flips(one: Aligned, first: int, second: int) -> tuple[list[str], list[str]]:
    """Ids on which `second` is better, and on which `first` is.

    The largest differences first, one from each cluster while there are others, with different answers where a cluster
    is scored as one, then in a fixed order that does not follow the file's.
    """
    apart = one.scores[:, second] - one.scores[:, first]
    alike = [answers[first] == answers[second] for answers in one.answers]
    order = sorted(np.flatnonzero(apart).tolist(), key=lambda k: (-abs(apart[k]), alike[k], _shuffled(one, k)))
    return _spread(one, [k for k in order if apart[k] > 0]), _spread(one, [k for k in order if apart[k] < 0])


def worst(one: Aligned) -> list[str]:
    """Ids of the items below the best score, lowest mean over the models first, then as `flips`.

    Among equal ones those come first whose cluster scores lowest.
    """
    means = one.scores.mean(axis=1)
    _, place = np.unique(one.clusters, return_inverse=True)
    of_cluster: Floats = (np.bincount(place, means) / np.bincount(place))[place]
    below = np.flatnonzero(means < 1).tolist()
    return _spread(one, sorted(below, key=lambda k: (means[k], of_cluster[k], _shuffled(one, k))))


def _spread(one: Aligned, order: Sequence[int]) -> list[str]:
    """The ids of these places: the first of each cluster, then the others."""
    first: dict[str, int] = {}
    for k in order:
        first.setdefault(one.clusters[k], k)
    chosen = set(first.values())
    return [one.ids[k] for k in (*first.values(), *(k for k in order if k not in chosen))]


def _shuffled(one: Aligned, k: int) -> bytes:
    return hashlib.sha256(f"{one.task}/{one.ids[k]}".encode()).digest()


# ---------------------------------------------------------------- what


def exhibit(
    one: Aligned, ids: Iterable[str], results: Sequence[Result], data: TaskData | None = None, prompts: str = ""
) -> list[Exhibit]:
    """The items with everything known about them.

    Args:
        one: The task.
        ids: Which items.
        results: The models to show.
        data: The task's items, if at hand.
        prompts: The prompt set under which they were asked.

    Raises:
        DataError: If an item is not in the data.
    """
    items = {item.id: item for item in data.items} if data else {}
    found = []
    for key in ids:
        if data and key not in items:
            raise DataError(f"{one.task}: item {key!r} was scored and is not in the data given with --data.")
        item = items.get(key)
        row = results[0].items[one.task][key]
        found.append(
            Exhibit(
                task=one.task,
                id=key,
                cluster=row.cluster,
                category=row.category,
                prompt=_prompt(one.task, item, prompts) if item else None,
                gold=_gold(item) if item else None,
                answered=tuple(_answered(r, one.task, key) for r in results),
                pictures=item.pictures if item else (),
            )
        )
    return found


def _answered(result: Result, task: str, key: str) -> Answered:
    row = result.items[task][key]
    return Answered(result.label, row.score, result.replies(task).get(key), row.answer)


def _prompt(task: str, item: Item, prompts: str) -> str:
    ask = EVERY[task].prompts.get(prompts)
    if ask:
        return ask(item).text
    return "\n".join((item.question, *(f"{LETTERS[i]}. {choice}" for i, choice in enumerate(item.choices))))


def _gold(item: Item) -> str:
    said = " | ".join(dict.fromkeys(item.gold))
    if item.choices and item.gold[0] in LETTERS[: len(item.choices)]:
        return f"{said}. {item.choices[LETTERS.index(item.gold[0])]}"
    return said


# ---------------------------------------------------------------- from the data


class Looker:
    """Finds exhibits in the data folder; one task's items are held at a time, with their pictures where wanted.

    Args:
        root: One folder a task, or the one task's own; None if the data are not at hand.
        results: The models, all of which are shown.
        pictures: Whether to read pictures.
    """

    def __init__(self, root: Path | None, results: Sequence[Result], *, pictures: bool = False) -> None:
        self.root, self.results, self.pictures = root, results, pictures
        self._held: TaskData | None = None
        self._prompts = _prompt_set(results)

    def look(self, one: Aligned, ids: Sequence[str], models: Sequence[str] = ()) -> list[Exhibit]:
        """The exhibits of a task, with the replies of the models with these labels, or of all.

        Raises:
            DataError: If the data are not those that were scored.
        """
        shown = [r for r in self.results if not models or r.label in models]
        return exhibit(one, ids, shown, self._data(one.task) if ids else None, self._prompts)

    def _data(self, task: str) -> TaskData | None:
        if self.root is None or task not in EVERY:
            return None
        if self._held is None or self._held.key != task:
            self._held = None  # let go of the last task's pictures first
            self._held = load_folder(self.root, task, pictures=self.pictures)
            _refuse_other_data(self.results, self.root, self._held)
        return self._held


def _prompt_set(results: Sequence[Result]) -> str:
    found = [r.folder for r in results if (r.folder / MANIFEST).is_file()]
    return read_manifest(found[0]).prompts if found else ""


def _refuse_other_data(results: Sequence[Result], root: Path, data: TaskData) -> None:
    for result in results:
        if not (result.folder / MANIFEST).is_file():
            continue
        asked = read_manifest(result.folder).tasks.get(data.key)
        if asked and asked.data_sha256 != data.sha256:
            raise DataError(
                f"{root}: {data.key} has sha256 {data.sha256[:12]}; {result.label} was asked about data with "
                f"{asked.data_sha256[:12]}. Point --data to those."
            )


@dataclass(frozen=True)
class Flips:
    """Items of one task on which one model of a pair is better than the other: how many, and some of them."""

    task: str
    better: str
    other: str
    total: int
    shown: tuple[Exhibit, ...]


def find_flips(
    one: Aligned, labels: Sequence[str], pairs: Sequence[tuple[str, str]], looker: Looker, n: int
) -> list[Flips]:
    """Both directions of every pair on one task, with at most n items each."""
    found = []
    for first, second in pairs:
        gained, lost = flips(one, labels.index(first), labels.index(second))
        for better, other, ids in ((second, first, gained), (first, second, lost)):
            shown = looker.look(one, ids[:n], (first, second))
            found.append(Flips(one.task, better, other, len(ids), tuple(shown)))
    return found
