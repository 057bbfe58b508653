"""Pairs of encoders on the images of tasks; what one side's features come to is computed once for all its pairs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Protocol, TypeVar

import numpy as np
from jaxtyping import Float

from kd_analysis.cells import GROUPS, cell_cka, group_states, merged
from kd_analysis.cka import Similarity, difference, estimate, leave_one_out, linear_cka, null_z, own_left_out
from kd_analysis.measures import measured
from kd_analysis.moments import Moments, Own
from kd_analysis.similarity import ALONE, OTHER, OWN, Measured, Record, TeacherDifference
from kd_analysis.streaming import own, paired


class Rows(Protocol):
    """One encoder's features, by image."""

    def missing(self, images: Sequence[str]) -> set[str]: ...

    def blocks(self, images: Sequence[str]) -> Iterator[np.ndarray]: ...


def whole(rows: Rows, images: Sequence[str]) -> Float[np.ndarray, "n ..."]:
    """All rows of these images in memory, for what needs n x n matrices."""
    return np.concatenate(list(rows.blocks(images)))


@dataclass(frozen=True)
class Features:
    """Features in memory; row i belongs to the image `ids[i]`."""

    ids: tuple[str, ...]
    rows: Float[np.ndarray, "n ..."]

    def missing(self, images: Sequence[str]) -> set[str]:
        return set(images) - set(self.ids)

    def blocks(self, images: Sequence[str]) -> Iterator[np.ndarray]:
        place = {image: row for row, image in enumerate(self.ids)}
        yield self.rows[[place[i] for i in images]]


@dataclass(frozen=True)
class Pair:
    """Two encoders to compare. `student_features` and `teacher_features` say under which key their features are.

    `missing` says why there is nothing to compare.
    """

    student: str
    teacher: str
    relation: str
    student_features: str
    teacher_features: str
    missing: str = ""


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    records: list[Record]
    measured: list[Measured]
    differences: list[TeacherDifference]


def compare(
    pairs: Sequence[Pair],
    features: Mapping[str, Rows],
    tasks: Mapping[str, Sequence[str]],
    *,
    tap: str,
    estimators: Sequence[str],
    level: float,
    sha256: Mapping[str, str],
    measures: Sequence[str] = (),
    seed: int = 0,
    keep: Callable[[Pair, str, Moments], None] = lambda pair, task, state: None,
    on_pair: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Every pair on every task; what one side's features come to is computed once for all its pairs.

    Args:
        pairs: What to compare.
        features: By key.
        tasks: The image ids of each task.
        tap: Where the features were read; recorded.
        estimators: See `cka.linear_cka`.
        level: Coverage of the jackknife's intervals.
        sha256: Digests of the models by name; recorded.
        measures: Other measures, see `measures.MEASURES`.
        seed: See `measures.measured`.
        keep: Told the state of each pair and task.
        on_pair: Told how many (pair, task) are done.

    Raises:
        ValueError: If features of an image are missing on one side.
    """
    found: dict[tuple[int, int], _Found] = {}
    done = 0
    for t, (task, ids) in enumerate(tasks.items()):
        on_task = _OnTask(task, ids, features, tap, estimators, level, measures, seed)
        for p, pair in enumerate(pairs):
            found[p, t] = on_task.compare(pair)
            if (state := found[p, t].state) is not None:
                keep(pair, task, state)
            found[p, t].state = None
            done += 1
            on_pair(done)
        for p, q in combinations(range(len(pairs)), 2):
            if line := _difference((pairs[p], found[p, t]), (pairs[q], found[q, t]), tap, task, level):
                found[p, t].differences.append(line)
        for p in range(len(pairs)):
            found[p, t].left = {}
    order = [found[p, t] for p in range(len(pairs)) for t in range(len(tasks))]
    shas = [(sha256[p.student], sha256[p.teacher]) for p in pairs for _ in tasks]
    return Comparison(
        [_signed(Record, line, sha) for one, sha in zip(order, shas, strict=True) for line in one.records],
        [_signed(Measured, line, sha) for one, sha in zip(order, shas, strict=True) for line in one.measured],
        [line for one in order for line in one.differences],
    )


Signed = TypeVar("Signed", Record, Measured)


def _signed(kind: type[Signed], line: dict[str, Any], sha: tuple[str, str]) -> Signed:
    return kind(**line, student_sha256=sha[0], teacher_sha256=sha[1])


@dataclass
class _Found:
    """Of one pair on one task."""

    records: list[dict[str, Any]] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    differences: list[TeacherDifference] = field(default_factory=list)
    values: dict[str, Similarity] = field(default_factory=dict)
    left: Mapping[str, np.ndarray] = field(default_factory=dict)
    state: Moments | None = None


@dataclass
class _OnTask:
    """The pairs on one task."""

    task: str
    ids: Sequence[str]
    features: Mapping[str, Rows]
    tap: str
    estimators: Sequence[str]
    level: float
    measures: Sequence[str]
    seed: int
    sides: dict[str, tuple[Own, Mapping[str, np.ndarray]]] = field(default_factory=dict)

    def compare(self, pair: Pair) -> _Found:
        found = _Found()
        if pair.missing:
            found.values = {e: Similarity(math.nan, len(self.ids), pair.missing) for e in self.estimators}
        elif self._has_cells(pair):
            self._by_cells(pair, found)
        else:
            self._by_rows(pair, found)
        head = {"student": pair.student, "teacher": pair.teacher, "relation": pair.relation, "tap": self.tap}
        for estimator, value in found.values.items():
            z = null_z(value.value, value.n) if estimator == "debiased" and found.left else math.nan
            found.records.append(
                head
                | {"estimator": estimator, "task": self.task, "value": _or_none(value.value)}
                | {"low": _or_none(value.low), "high": _or_none(value.high), "se": _or_none(value.se)}
                | {"n": value.n, "z": _or_none(z), "reason": value.reason}
            )
        if self.measures and found.state is not None and found.left:
            for name, (value, detail) in measured(
                self.measures, found.state, lambda: self._whole(pair), self.seed
            ).items():
                line = {"measure": name, "task": self.task, "value": _or_none(value.value), "n": value.n}
                found.measured.append(head | line | {"reason": value.reason, "detail": detail})
        return found

    def _has_cells(self, pair: Pair) -> bool:
        for key in (pair.student_features, pair.teacher_features):
            if missing := self.features[key].missing(self.ids):
                raise ValueError(
                    f"Expected features of the same {len(self.ids)} images on both sides; {len(missing)} are missing "
                    f"of {key}, first {min(missing)[:12]}."
                )
        first = next(iter(self.features[pair.student_features].blocks(self.ids[:1])))
        return first.ndim == 3

    def _blocks(self, pair: Pair) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        x, y = self.features[pair.student_features], self.features[pair.teacher_features]
        return zip(x.blocks(self.ids), y.blocks(self.ids), strict=True)

    def _whole(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        return tuple(whole(self.features[key], self.ids) for key in (pair.student_features, pair.teacher_features))  # type: ignore[return-value]

    def _side(self, key: str) -> tuple[Own, Mapping[str, np.ndarray]]:
        if key not in self.sides:
            one = own(self.features[key].blocks(self.ids))
            left = own_left_out(one, self.features[key].blocks(self.ids)) if one.n >= 3 else {}
            self.sides[key] = one, left
        return self.sides[key]

    def _by_rows(self, pair: Pair, found: _Found) -> None:
        (x, left_x), (y, left_y) = self._side(pair.student_features), self._side(pair.teacher_features)
        found.state = paired(x, y, self._blocks(pair))
        if found.state.n >= 3:
            left = leave_one_out(found.state, self._blocks(pair), (left_x, left_y))
            found.left = {name: left[name] for name in self.estimators if name in left}
        for estimator in self.estimators:
            whole = linear_cka(found.state, estimator)
            without = found.left.get(estimator)
            found.values[estimator] = whole if without is None else estimate(whole, without, self.level)

    def _by_cells(self, pair: Pair, found: _Found) -> None:
        x, y = self.features[pair.student_features], self.features[pair.teacher_features]
        size = max(1, math.ceil(len(self.ids) / GROUPS))
        groups = [self.ids[i : i + size] for i in range(0, len(self.ids), size)]
        states = group_states(pair for ids in groups for pair in zip(x.blocks(ids), y.blocks(ids), strict=True))
        found.state = merged(states)
        for estimator in self.estimators:
            found.values[estimator] = cell_cka(states, len(self.ids), estimator, self.level)


def _difference(
    one: tuple[Pair, _Found], two: tuple[Pair, _Found], tap: str, task: str, level: float
) -> TeacherDifference | None:
    """Between two teachers of one student; None for other pairs and where one of the two values does not exist."""
    (a, found_a), (b, found_b) = one, two
    if a.student != b.student or not {a.relation, b.relation} <= {OWN, OTHER, ALONE}:
        return None
    if "debiased" not in found_a.left or "debiased" not in found_b.left:
        return None
    values = found_a.values["debiased"], found_b.values["debiased"]
    if values[0].reason or values[1].reason:
        return None
    line = difference(*values, found_a.left["debiased"], found_b.left["debiased"], level)
    return TeacherDifference(
        a.student, a.teacher, b.teacher, tap, "debiased", task,
        line.value, line.low, line.high, line.se, _or_none(line.correlation), line.n,
    )  # fmt: skip


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
