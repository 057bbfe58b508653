"""CKA of students and teachers on each task's images, with the controls that tell what a value means."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from kd_analysis.cka import null_z, with_interval
from kd_analysis.moments import Moments
from kd_analysis.names import parse
from kd_analysis.streaming import moments

OWN, OTHER, ALONE, UNTRAINED, TEACHERS = "own teacher", "other teacher", "no teacher", "untrained", "teachers"
RELATIONS = (OWN, OTHER, ALONE, UNTRAINED, TEACHERS)


@dataclass(frozen=True)
class Features:
    """One encoder's features; row i belongs to the image `ids[i]`."""

    ids: tuple[str, ...]
    rows: Float[np.ndarray, "n d"]


@dataclass(frozen=True)
class Pair:
    """Two encoders to compare. `student_features` and `teacher_features` say under which key their features are."""

    student: str
    teacher: str
    relation: str
    student_features: str
    teacher_features: str


@dataclass(frozen=True)
class Record:
    """One value of CKA. `value`, `low`, `high`, `se` are None where CKA does not exist, and `reason` says why.

    `student` is, for relation "untrained", the student whose architecture was started afresh; for "teachers" the other
    teacher. `z` is the distance from no alignment in standard deviations (debiased only).
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


def relation_of(student: str, teacher: str, given: bool) -> str:
    """How the two stand to each other, by name; where the names tell nothing, a given pair is student and teacher."""
    one, two = parse(student), parse(teacher)
    if one.kind != "student":
        return OWN if given else OTHER
    if one.alone:
        return ALONE
    return OWN if (two.kind == "teacher" and one.teacher == two.teacher) else OTHER


def aligned(
    x: Features, y: Features, ids: Sequence[str]
) -> tuple[Float[np.ndarray, "n d1"], Float[np.ndarray, "n d2"]]:
    """The rows of both for these images, in this order.

    Raises:
        ValueError: If the two hold different images or another order, or lack one of `ids`.
    """
    if x.ids != y.ids:
        raise ValueError("Expected features of the same images in the same order on both sides.")
    place = {image: row for row, image in enumerate(x.ids)}
    if missing := [i for i in ids if i not in place]:
        raise ValueError(
            f"Expected features of {len(ids)} images, {len(missing)} are missing, first {missing[0][:12]}."
        )
    rows = [place[i] for i in ids]
    return x.rows[rows], y.rows[rows]


def compare(
    pairs: Iterable[Pair],
    features: Mapping[str, Features],
    tasks: Mapping[str, Sequence[str]],
    *,
    tap: str,
    estimators: Sequence[str],
    level: float,
    sha256: Mapping[str, str],
    keep: Callable[[Pair, str, Moments], None] = lambda pair, task, state: None,
) -> list[Record]:
    """Every pair on every task.

    Args:
        pairs: What to compare.
        features: By key, all over the same images.
        tasks: The image ids of each task.
        tap: Where the features were read; recorded.
        estimators: See `cka.linear_cka`.
        level: Coverage of the jackknife's intervals.
        sha256: Digests of the models by name; recorded.
        keep: Told the state of each pair and task.
    """
    records = []
    for pair in pairs:
        for task, ids in tasks.items():
            x, y = aligned(features[pair.student_features], features[pair.teacher_features], ids)
            state = moments([(x, y)])
            keep(pair, task, state)
            for estimator in estimators:
                found = with_interval(state, [(x, y)], estimator, level)
                z = null_z(found.value, found.n) if estimator == "debiased" else math.nan
                records.append(
                    Record(
                        student=pair.student,
                        teacher=pair.teacher,
                        relation=pair.relation,
                        tap=tap,
                        estimator=estimator,
                        task=task,
                        value=_or_none(found.value),
                        low=_or_none(found.low),
                        high=_or_none(found.high),
                        se=_or_none(found.se),
                        n=found.n,
                        z=_or_none(z),
                        reason=found.reason,
                        student_sha256=sha256[pair.student],
                        teacher_sha256=sha256[pair.teacher],
                    )
                )
    return records


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def write_records(path: Path, records: Sequence[Record]) -> None:
    """A JSON list, one record a line."""
    lines = [json.dumps(asdict(r), allow_nan=False) for r in records]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def read_records(path: Path) -> list[Record]:
    """What `write_records` wrote.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is not such a list.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected similarities at {path}, found none. Run `analysis cka` first.")
    try:
        return [Record(**row) for row in json.loads(path.read_text())]
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a JSON list of records as `analysis cka` writes it: {error}") from None


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
