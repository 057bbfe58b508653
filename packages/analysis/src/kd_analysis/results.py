"""The tidy table of results: one line a value. Every table and figure of the study is a function of it.

A value belongs to a cell: an encoder (a teacher itself, or a student of it under a loss, a data set and a schedule),
for multimodal tasks inside a framework and a language model, on a task. Scores are in the unit that is printed:
percent, MME perception up to 2000.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from kd_analysis.scores import InputError
from kd_analysis.tasks import AVERAGE, TASKS, task_of

SCORE, CKA = "score", "cka"
ENCODER, PARAMS = "encoder", "params_m"  # the task and the metric of an encoder's size
NO_TEACHER = "none"

EmptyIsNan = Annotated[float, BeforeValidator(lambda v: math.nan if v in ("", None) else v)]
EmptyIsZero = Annotated[int, BeforeValidator(lambda v: 0 if v in ("", None) else v)]
EmptyIsNought = Annotated[float, BeforeValidator(lambda v: 0.0 if v in ("", None) else v)]


class Result(BaseModel):
    """One value of one cell.

    Attributes:
        framework: How the VLM was trained; empty for what an encoder has without a VLM (ImageNet, CKA, its size).
        llm: The VLM's language model; empty likewise.
        teacher: A pretrained encoder. Without a student the value is its own. "none" for a student without a teacher.
        student: The architecture that was distilled; empty for the teacher itself.
        loss: What the student was distilled with; empty for a teacher. `dataset` likewise.
        epochs: The length of the student's schedule; 0 where it is not told.
        epoch: Where in the schedule the encoder was taken; `epochs` at its end.
        seed: Of the training.
        task: A benchmark, "average", "imagenet" or "encoder".
        metric: "score", "cka" (of student and teacher on the task's images) or "params_m".
        value: In the printed unit.
        se: Its standard error in the same unit; NaN if unknown.
        n: How many items; 0 if unknown.
        table: Where a published value is printed; empty for a measured one.
        source: A row of that table, a run, or a folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    framework: str = ""
    llm: str = ""
    teacher: str = Field(min_length=1)
    student: str = ""
    loss: str = ""
    dataset: str = ""
    epochs: EmptyIsNought = Field(default=0.0, ge=0)
    epoch: EmptyIsNought = Field(default=0.0, ge=0)
    seed: EmptyIsZero = Field(default=0, ge=0)
    task: str = Field(min_length=1)
    metric: str = SCORE
    value: EmptyIsNan
    se: EmptyIsNan = math.nan
    n: EmptyIsZero = Field(default=0, ge=0)
    table: str = ""
    source: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What this is a value of: equal for repetitions alone."""
        return (*self.model, self.seed, self.task, self.metric)

    @property
    def model(self) -> tuple[Any, ...]:
        """The cell but for the seed, the task and the metric."""
        return (
            self.framework, self.llm, self.teacher, self.student, self.loss, self.dataset, self.epochs, self.epoch,
        )  # fmt: skip

    @property
    def points(self) -> float:
        """The value on the scale from 0 to 100 on which benchmarks are averaged (MME perception over 20)."""
        return 100 * self.value / task_of(self.task).best

    @property
    def points_se(self) -> float:
        return 100 * self.se / task_of(self.task).best

    @property
    def named(self) -> str:
        """The cell in words."""
        parts = (self.framework, self.llm, self.teacher, self.student, self.loss, self.dataset, self.task, self.metric)
        ends = (
            f"epoch {self.epoch:g} of {self.epochs:g}" if self.epochs else "",
            f"seed {self.seed}" if self.seed else "",
        )
        return ", ".join(filter(None, (*parts, *ends)))


COLUMNS = tuple(Result.model_fields)


class DuplicateError(InputError):
    """Several values for one cell; the message lists them."""


def refuse_duplicates(results: Sequence[Result]) -> None:
    """Raise `DuplicateError` with the list of cells that hold more than one value."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(result.key, []).append(result)
    doubled = [group for group in groups.values() if len(group) > 1]
    if doubled:
        lines = [
            f"  {g[0].named}: " + ", ".join(f"{r.value:g} ({' '.join(filter(None, (r.table, r.source)))})" for r in g)
            for g in doubled
        ]
        raise DuplicateError(
            f"Expected one value a cell; {len(doubled)} cells have several. Keep one of each:\n" + "\n".join(lines)
        )


def read_csv(path: Path) -> list[Result]:
    """Results from a CSV file with the columns of `COLUMNS`; those that may be empty may be absent.

    Raises:
        InputError: If the file is missing, or a column or a value is not of the agreed form.
    """
    if not path.is_file():
        raise InputError(f"Expected a table of results at {path}, found none.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if unknown := sorted(set(reader.fieldnames or ()) - set(COLUMNS)):
                raise InputError(f"{path}: unknown columns {', '.join(unknown)}; known: {', '.join(COLUMNS)}.")
            return [_parsed(row, f"{path}, line {number}") for number, row in enumerate(reader, 2)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV table in UTF-8: {error}.") from None


def _parsed(row: dict[str, Any], where: str) -> Result:
    try:
        found = Result.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    if any(map(math.isinf, (found.value, found.se, found.epochs, found.epoch))):
        raise InputError(f"{where}: expected finite numbers, got an infinite one.")
    return found


def write_csv(results: Iterable[Result], path: Path) -> None:
    """The same table, sorted by cell, in full precision; what is unknown is empty."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for r in sorted(results, key=lambda r: (r.key, r.table, r.source)):
            writer.writerow([_written(name, getattr(r, name)) for name in COLUMNS])


def _written(name: str, value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return ""
    if name in ("epochs", "epoch", "n"):
        return f"{value:g}" if value else ""
    return value


def with_averages(results: Sequence[Result]) -> list[Result]:
    """The results and, for each VLM with a score on every task of its peers but no printed average, the mean of them.

    The error of an average is that of a mean over these very tasks. Over the 16 benchmarks of the study it is the
    published Average; over other tasks, `source` says how many.
    """
    scores: dict[tuple[Any, ...], dict[str, Result]] = {}
    for r in results:
        if r.metric == SCORE and (r.framework or r.llm):
            scores.setdefault((*r.model, r.seed), {})[r.task] = r
    tasks = set().union(*scores.values()) - {AVERAGE} if scores else set()
    return [*results, *(_mean(some, tasks) for some in scores.values() if AVERAGE not in some and tasks == set(some))]


def _mean(some: dict[str, Result], tasks: set[str]) -> Result:
    found = [some[t] for t in sorted(tasks)]
    se = math.sqrt(sum(r.points_se**2 for r in found)) / len(found)
    return found[0].model_copy(
        update={
            "task": AVERAGE,
            "value": sum(r.points for r in found) / len(found),
            "se": se,
            "n": sum(r.n for r in found),
            "source": "" if tasks == TASKS.keys() else f"mean of {len(tasks)} tasks",
        }
    )


def over_seeds(results: Sequence[Result]) -> list[Result]:
    """One value a cell: the mean over its seeds, whose error holds item error and the spread between trainings."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for r in results:
        groups.setdefault((*r.model, r.task, r.metric), []).append(r)
    return [_over(group) if len(group) > 1 else group[0] for group in groups.values()]


def _over(group: list[Result]) -> Result:
    count, mean = len(group), sum(r.value for r in group) / len(group)
    between = sum((r.value - mean) ** 2 for r in group) / (count - 1) / count
    items = sum(r.se**2 for r in group) / count  # the items are the same for every seed, so their error does not shrink
    se = math.sqrt(between + (0.0 if math.isnan(items) else items))
    return group[0].model_copy(update={"value": mean, "se": se, "seed": 0, "source": f"mean of {count} seeds"})
