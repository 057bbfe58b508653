"""What is recorded of a similarity: of which pair, at which tap, on which task's images, by which estimator."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from kd_analysis.durable import write_whole
from kd_analysis.names import parse
from kd_analysis.reading import FileError, read_as

OWN, OTHER, ALONE, UNTRAINED, TEACHERS = "own teacher", "other teacher", "no teacher", "untrained", "teachers"
SEEDS = "two seeds"
RELATIONS = (OWN, OTHER, ALONE, UNTRAINED, TEACHERS, SEEDS)


@dataclass(frozen=True)
class Record:
    """One value of CKA. `value`, `low`, `high`, `se` are None where CKA does not exist, and `reason` says why.

    `student` is, for relation "untrained", the student whose architecture was started afresh; for "teachers" the other
    teacher; for "two seeds" another training of the student that stands as `teacher`. `z` is the distance from no
    alignment in standard deviations (debiased only).
    """

    student: str
    teacher: str
    relation: str
    tap: str
    estimator: str
    task: str
    value: float | None
    low: float | None
    high: float | None
    se: float | None
    n: int
    z: float | None
    reason: str
    student_sha256: str
    teacher_sha256: str


@dataclass(frozen=True)
class Measured:
    """One value of another measure; `detail` holds what it was computed with."""

    student: str
    teacher: str
    relation: str
    tap: str
    measure: str
    task: str
    value: float | None
    n: int
    reason: str
    student_sha256: str
    teacher_sha256: str
    detail: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TeacherDifference:
    """Debiased CKA of a student with one teacher minus with another, paired over the same images."""

    student: str
    teacher: str
    other: str
    tap: str
    estimator: str
    task: str
    value: float
    low: float
    high: float
    se: float
    correlation: float | None
    n: int


def relation_of(student: str, teacher: str, given: bool) -> str:
    """How the two stand to each other, by name; where the names tell nothing, a given pair is student and teacher."""
    one, two = parse(student), parse(teacher)
    if one.kind != "student":
        return OWN if given else OTHER
    if one.alone:
        return ALONE
    return OWN if (two.kind == "teacher" and one.teacher == two.teacher) else OTHER


def write_records(path: Path, records: Sequence[Record | Measured | TeacherDifference]) -> None:
    """A JSON list, one record a line."""
    lines = [json.dumps(asdict(r), allow_nan=False) for r in records]
    write_whole(path, ("[\n" + ",\n".join(lines) + "\n]\n").encode())


def read_records(path: Path) -> list[Record]:
    """What `write_records` wrote.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is not such a list.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected similarities at {path}, found none. Run `analysis cka` first.")
    try:
        found: list[Record] = read_as(list[Record], path)
    except FileError as error:
        raise ValueError(f"{path}: expected a JSON list of records as `analysis cka` writes it: {error}") from None
    return found


def mean_over_tasks(records: Sequence[Record]) -> tuple[float, float]:
    """The mean of the values over tasks and its standard error, tasks taken as fixed; NaN without a value.

    Several pairs on one task share its images, so their errors are taken as one.
    """
    by_task: dict[str, list[tuple[float, float]]] = {}
    for r in records:
        if r.value is not None and r.se is not None:
            by_task.setdefault(r.task, []).append((r.value, r.se))
    if not by_task:
        return math.nan, math.nan
    tasks = np.array([np.mean(pairs, axis=0) for pairs in by_task.values()])
    return float(tasks[:, 0].mean()), math.sqrt(float((tasks[:, 1] ** 2).sum())) / len(tasks)
