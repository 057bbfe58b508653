"""Read what the evaluation wrote: `scores.json` and `items.jsonl` of each model (contract/README.md, "Evaluation")."""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_analysis.clustered import Clustered, summed
from kd_analysis.names import Name, parse

ZEROSHOT = "zeroshot"
AVERAGE = "average"  # the evaluation's own mean over tasks; it has no items
REPRODUCED = 1e-5  # item scores are written with six digits


class InputError(ValueError):
    """An input folder or file is missing or not of the agreed form; the message says which and what to do."""


class Score(BaseModel):
    """One metric of one model on one benchmark; `value`, `stderr` and `chance` lie on the scale [0, `best`]."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    benchmark: str
    benchmark_version: str = ""
    metric: str
    value: float
    best: float = Field(gt=0)
    stderr: float
    n: int = Field(gt=0)
    n_unparsed: int = 0
    top_answer_share: float | None = None
    chance: float | None = None

    @property
    def percent(self) -> float:
        return 100 * self.value / self.best

    @property
    def percent_stderr(self) -> float:
        return 100 * self.stderr / self.best

    @property
    def percent_chance(self) -> float | None:
        return None if self.chance is None else 100 * self.chance / self.best


class ModelRef(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: str
    name: str
    sha256: str


class ScoresFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    form: Literal["kd-scores/1"] = Field(alias="schema")
    model: ModelRef
    blind: bool = False
    scores: tuple[Score, ...] = Field(min_length=1)


class ItemLine(TypedDict):
    """One line of `items.jsonl`; a dictionary, since there may be millions."""

    task: str
    id: str | int
    cluster: str | int
    score: Annotated[float, Field(ge=0, le=1)]


ITEM, ITEMS = TypeAdapter(ItemLine), TypeAdapter(list[ItemLine])
TOGETHER = 2000  # lines validated in one call: a call costs as much as a line


@dataclass(frozen=True)
class Scored:
    """One evaluated model: its scores by task (the first metric of each) and its items, clustered."""

    ref: ModelRef
    name: Name
    blind: bool
    scores: dict[str, Score]
    items: dict[str, Clustered]

    @property
    def key(self) -> str:
        return f"{self.ref.name}{'-blind' if self.blind else ''}"


def read_scored(folder: Path) -> list[Scored]:
    """Every model under `folder`, sorted by name.

    Raises:
        InputError: If there is no model, a file is missing or malformed, two folders hold the same model, or items do
            not cover a task that has a score.
    """
    found = sorted(folder.glob("*/scores.json"))
    if not found:
        raise InputError(f"Expected model folders with scores.json in {folder}, found none. Run the evaluation first.")
    models = [_read_one(path.parent) for path in found]
    refuse_doubles(models)
    return sorted(models, key=lambda m: m.key)


def refuse_doubles(models: Sequence[Scored]) -> None:
    """Raise InputError if one model (seeing or blind) stands in several folders."""
    keys = [m.key for m in models]
    if doubled := sorted({k for k in keys if keys.count(k) > 1}):
        raise InputError(f"Several folders hold {', '.join(doubled)}; keep one of each.")


def _read_one(folder: Path) -> Scored:
    path = folder / "scores.json"
    try:
        whole = ScoresFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{path}: {where}: {first['msg']}.") from None
    scores: dict[str, Score] = {}
    for score in whole.scores:
        if score.benchmark != AVERAGE:
            scores.setdefault(score.benchmark, score)
    items = _read_items(folder / "items.jsonl")
    if missing := sorted(scores.keys() - items.keys()):
        raise InputError(f"{folder}/items.jsonl: expected items of {', '.join(missing)}, found none.")
    return Scored(whole.model, parse(whole.model.name), whole.blind, scores, items)


def _read_items(path: Path) -> dict[str, Clustered]:
    """The sum and the number of item scores of each cluster, by task; `TOGETHER` lines are held at a time."""
    if not path.is_file():
        raise InputError(f"Expected the scores of items at {path}, found none. Run the evaluation again.")
    tasks: dict[str, dict[str, list[float]]] = {}
    with path.open("rb") as lines:
        first = 1
        while some := list(itertools.islice(lines, TOGETHER)):
            for item in _validated(some, path, first):
                clusters = tasks.setdefault(item["task"], {})
                both = clusters.setdefault(sys.intern(str(item["cluster"])), [0.0, 0.0])  # models share the names
                both[0] += item["score"]
                both[1] += 1
            first += len(some)
    return {task: summed(clusters) for task, clusters in tasks.items()}


def _validated(lines: Sequence[bytes], path: Path, first: int) -> list[ItemLine]:
    """All lines in one call; only where that fails one by one, to name the line."""
    try:
        items = ITEMS.validate_json(b"[%b]" % b",".join(lines))
        if len(items) == len(lines):
            return items
    except ValidationError:
        pass
    items = []
    for number, line in enumerate(lines, first):
        try:
            items.append(ITEM.validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}:{number}: expected {{task, id, cluster, score}}: {error}") from None
    return items


def other_versions(models: Sequence[Scored]) -> dict[str, list[str]]:
    """Tasks that were not scored on one version of the data (and by one protocol), with the versions."""
    found: dict[str, set[str]] = {}
    for model in models:
        for task, score in model.scores.items():
            found.setdefault(task, set()).add(score.benchmark_version)
    return {task: sorted(versions) for task, versions in found.items() if len(versions) > 1}


# ---------------------------------------------------------------- from items to suites


def suite(model: Scored) -> dict[str, Clustered]:
    """The clustered items of each task of a model."""
    return {task: model.items[task] for task in model.scores}


def reweighted(models: Sequence[Scored]) -> list[str]:
    """Tasks whose score is not the mean of their items (MME with categories of unequal size)."""
    return sorted(
        {
            task
            for model in models
            for task, score in model.scores.items()
            if abs(model.items[task].score - score.value / score.best) > REPRODUCED
        }
    )
