"""Published numbers as data: "When Better Teachers Don't Make Better Students" (arXiv 2511.17886v1), Tables 1 to 5.

`data/paper.csv` holds every value with the row that prints it; `data/paper_text.json` what the text says in numbers or
names, for `inconsistencies` to check. The points of Figure 3 are not printed as numbers and are not here.
"""

import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from kd_analysis.results import SCORE, Result, read_csv
from kd_analysis.tasks import AVERAGE, IMAGENET, IMAGENET_IMAGES, TASKS, task_of

FAMILIES = {"CLIP": ("CLIP-ViT-B", "CLIP-ViT-L"), "DFN": ("DFN-ViT-B", "DFN-ViT-L")}  # the smaller first


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    where: str


class SaidGap(_Said):
    """Teacher minus student on the average, within the main framework and language model."""

    kind: Literal["gap"]
    teacher: str
    student: str
    value: float
    digits: int


class SaidScore(_Said):
    """A score that also stands in a table."""

    kind: Literal["score"]
    teacher: str
    student: str
    dataset: str
    task: str
    value: float
    digits: int


class SaidRange(_Said):
    """Scores of several students said to lie in a range after so many epochs."""

    kind: Literal["range"]
    teachers: tuple[str, ...]
    student: str
    task: str
    epochs: int
    low: float
    high: float


class SaidRatios(_Said):
    """Values of student / teacher on a task whose scores are whole units."""

    kind: Literal["ratios"]
    teachers: tuple[str, ...]
    task: str
    values: tuple[float, ...]


class SaidBest(_Said):
    """A loss said to be the best for every teacher."""

    kind: Literal["best"]
    loss: str
    tasks: tuple[str, ...]


class SaidCheckpoint(_Said):
    """Which public checkpoint a model is."""

    kind: Literal["checkpoint"]
    model: str
    checkpoint: str


class SaidSpelling(_Said):
    """How a name is printed in one place."""

    kind: Literal["spelling"]
    of: str
    printed: str


Said = SaidGap | SaidScore | SaidRange | SaidRatios | SaidBest | SaidCheckpoint | SaidSpelling
_SAID: TypeAdapter[list[Said]] = TypeAdapter(list[Annotated[Said, Field(discriminator="kind")]])


def printed() -> list[Result]:
    """Every printed value with its table and row; a cell may stand in several tables."""
    with resources.as_file(resources.files("kd_analysis") / "data" / "paper.csv") as path:
        return read_csv(Path(path))


def said() -> list[Said]:
    """What the text says in numbers or names."""
    text = (resources.files("kd_analysis") / "data" / "paper_text.json").read_text(encoding="utf-8")
    return _SAID.validate_python(json.loads(text))


def published(values: Sequence[Result] | None = None) -> list[Result]:
    """One value a cell: where two tables disagree, the first in the paper's order (the others are inconsistencies).

    Errors are binomial, from the benchmarks' public sizes: an upper bound, since item scores lie in [0, 1].
    """
    found: dict[tuple[Any, ...], Result] = {}
    for value in printed() if values is None else values:
        found.setdefault(value.key, value)
    return _with_average_errors([with_binomial_error(r) for r in found.values()])


def with_binomial_error(result: Result) -> Result:
    """The result with the standard error of a proportion, where its task's size is known; unchanged elsewhere."""
    task = task_of(result.task)
    units = IMAGENET_IMAGES if result.task == IMAGENET else task.units
    if result.metric != SCORE or not units:
        return result
    share = min(1.0, max(0.0, result.value / task.best))
    return result.model_copy(update={"se": task.best * math.sqrt(share * (1 - share) / units), "n": units})


def _with_average_errors(results: Sequence[Result]) -> list[Result]:
    """Averages get the error that follows from their tasks; one printed without its tasks the largest of those."""
    tasks: dict[tuple[Any, ...], list[Result]] = {}
    for r in results:
        if r.metric == SCORE and r.task in TASKS:
            tasks.setdefault(r.model, []).append(r)
    errors = {m: math.sqrt(sum(r.points_se**2 for r in some)) / len(some) for m, some in tasks.items()}
    largest: dict[tuple[Any, ...], float] = {}
    for model, error in errors.items():
        kind = (*model[:2], bool(model[3]))  # framework, language model, student or not
        largest[kind] = max(error, largest.get(kind, 0.0))

    def error_of(r: Result) -> float:
        return errors.get(r.model, largest.get((r.framework, r.llm, bool(r.student)), math.nan))

    return [r.model_copy(update={"se": error_of(r)}) if r.task == AVERAGE else r for r in results]
