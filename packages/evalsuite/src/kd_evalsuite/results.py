"""Scored models, read from their folders and aligned item by item (contract/README.md, "Evaluation")."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from kd_evalsuite.average import AVERAGE
from kd_evalsuite.items import DataError
from kd_evalsuite.predictions import read_predictions
from kd_evalsuite.records import Score, Scores
from kd_evalsuite.score import ITEMS, SCORES, read_scores
from kd_evalsuite.tasks import EVERY


class ItemRow(BaseModel):
    """One line of `items.jsonl`. `answer` is None where none could be read, and empty where that was not recorded."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    task: str
    id: str
    cluster: str
    category: str = ""
    answer: str | None = ""
    score: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class Result:
    """One scored model.

    Attributes:
        folder: Where its scores stand.
        label: Its name, with `-blind` where it was not shown the images.
        scores: Its `scores.json`.
        items: By task and id.
        replies_in: The folder with its `<task>.jsonl`.
    """

    folder: Path
    label: str
    scores: Scores
    items: Mapping[str, Mapping[str, ItemRow]]
    replies_in: Path
    _read: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def mains(self) -> Mapping[str, Score]:
        """The main metric of each task, in the order of the suite."""
        found: dict[str, Score] = {}
        for score in self.scores.scores:
            if score.benchmark != AVERAGE:
                found.setdefault(score.benchmark, score)
        known = [key for key in EVERY if key in found]
        return {key: found[key] for key in (*known, *(k for k in found if k not in EVERY))}

    def replies(self, task: str) -> Mapping[str, str]:
        """The model's replies by item id; empty where no predictions are at hand."""
        if task not in self._read:
            rows = read_predictions(self.replies_in / f"{task}.jsonl")
            self._read[task] = {key: one.prediction for key, one in rows.items()}
        return self._read[task]


# ---------------------------------------------------------------- reading


def find_folders(named: Sequence[str], scores: Path | None) -> list[Path]:
    """The folders with scores that the arguments of a command stand for.

    Args:
        named: Folders with `scores.json`, folders of such ones, or, with `scores`, names of models or folders in it.
        scores: A folder of scored models.

    Raises:
        DataError: If one leads nowhere.
    """
    found: list[Path] = []
    for one in named or ["."]:
        place = scores / one if scores and not Path(one).is_dir() else Path(one)
        if (place / SCORES).is_file():
            found.append(place)
        elif below := sorted(p.parent for p in place.glob(f"*/{SCORES}")):
            found.extend(below)
        else:
            found.append(_by_name(one, scores))
    return list(dict.fromkeys(found))


def _by_name(name: str, scores: Path | None) -> Path:
    if scores is None:
        raise DataError(f"Expected {SCORES} in {name} or in folders below it, found none. Run evalsuite score first.")
    names = {label_of(scores_in(path.parent)): path.parent for path in sorted(scores.glob(f"*/{SCORES}"))}
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none'}."
    raise DataError(f"{scores} holds no model {name!r}; {hint}")


def scores_in(folder: Path) -> Scores:
    """The scores in a folder.

    Raises:
        DataError: If there are none, or the file is not one of scores.
    """
    try:
        return read_scores(folder)
    except DataError:
        raise
    except ValueError as error:  # pydantic's, and of bytes that are no UTF-8
        raise DataError(f"{folder / SCORES}: not a file of scores: {error}") from None


def label_of(scores: Scores) -> str:
    """A model's name, with `-blind` where it was not shown the images."""
    return scores.model.name + ("-blind" if scores.blind else "")


def read_results(folders: Sequence[Path], predictions: Sequence[Path] = ()) -> list[Result]:
    """The models in these folders.

    Args:
        folders: Each with `scores.json` and `items.jsonl`.
        predictions: Where their replies are, if not beside the scores: one folder each, or one that holds a folder of
            the same name for each.

    Raises:
        DataError: If files are missing, malformed or at odds with each other.
    """
    replies = _replies_in(folders, predictions)
    found = []
    for folder, place in zip(folders, replies, strict=True):
        scores = scores_in(folder)
        found.append(Result(folder, label_of(scores), scores, read_items(folder / ITEMS), place))
    return found


def told_apart(results: Sequence[Result], places: Sequence[Path]) -> list[Result]:
    """The results with labels that differ: the models' names, else the names of their places, else these in full."""
    for labels in ([r.label for r in results], [place.resolve().name for place in places], list(map(str, places))):
        if len(set(labels)) == len(labels):
            return [replace(r, label=label) for r, label in zip(results, labels, strict=True)]
    raise DataError(f"Expected different models, got {', '.join(map(str, places))}.")


def _replies_in(folders: Sequence[Path], predictions: Sequence[Path]) -> list[Path]:
    if not predictions:
        return list(folders)
    if len(predictions) == 1 and not any(predictions[0].glob("*.jsonl")):
        found = [predictions[0] / folder.resolve().name for folder in folders]
    elif len(predictions) == len(folders):
        found = list(predictions)
    else:
        raise DataError(
            f"Expected one folder of predictions for each of {len(folders)} models, or one that holds a folder of the "
            f"same name for each; got {len(predictions)}."
        )
    if absent := [str(place) for place in found if not place.is_dir()]:
        raise DataError(f"Expected folders of predictions at {', '.join(absent)}, found none.")
    return found


def read_items(path: Path) -> dict[str, dict[str, ItemRow]]:
    """The lines of `items.jsonl` by task and id.

    Raises:
        DataError: If it is missing, a line is not an item, or an item comes twice.
    """
    if not path.is_file():
        raise DataError(f"Expected the scores of items at {path}, found none. Run evalsuite score again.")
    row = TypeAdapter(ItemRow)
    found: dict[str, dict[str, ItemRow]] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                one = row.validate_json(line)
            except ValidationError as error:
                raise DataError(f"{path}:{number}: not the score of an item: {error}") from None
            if one.id in found.setdefault(one.task, {}):
                raise DataError(f"{path}:{number}: item {one.id!r} of {one.task} is there twice.")
            found[one.task][one.id] = one
    return found
