"""Relations over more than two models: teachers against students by rank, similarity against score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from kd_analysis.names import labels
from kd_analysis.ranks import RankCorrelation, concordance, kendall, spearman
from kd_analysis.similarity import ALONE as WITHOUT
from kd_analysis.similarity import OTHER, OWN, SEEDS, UNTRAINED, Record, mean_over_tasks
from kd_analysis.stats import normal
from kd_analysis.study import STUDENT, TEACHER, Entry, Study


@dataclass(frozen=True)
class Trend:
    """A rank correlation with what it relates."""

    what: str
    spearman: RankCorrelation
    kendall: RankCorrelation
    pairs: tuple[int, int, int]


def _points(entry: Entry) -> float:
    return 100 * float(np.mean([task.score for task in entry.suite.values()]))


def teachers_against_students(study: Study, rng: np.random.Generator) -> list[Trend]:
    """For each measure, teachers' scores against the mean scores of their students; nothing with fewer than three."""
    found = []
    for measure, entries in study.measures.items():
        x, y = [], []
        for teacher in study.teachers:
            own = [_points(e) for e in entries if e.role == TEACHER and e.encoder.family == teacher]
            students = [_points(e) for e in entries if e.role == STUDENT and e.encoder.family == teacher]
            if own and students:
                x.append(float(np.mean(own)))
                y.append(float(np.mean(students)))
        if len(x) >= 3:
            what = f"teacher against student, {measure}"
            found.append(Trend(what, spearman(x, y, rng), kendall(x, y, rng), concordance(x, y)))
    return found


@dataclass(frozen=True)
class Alike:
    """One student's mean debiased CKA over tasks, with its half width; NaN where it was not measured.

    `seeds` is that of two trainings of the student: how alike the same experiment is to itself.
    """

    student: str
    teacher: str
    own: float
    own_half: float
    other: float
    floor: float
    seeds: float
    biased: float
    n_tasks: int


def alike(records: Sequence[Record], level: float) -> list[Alike]:
    """Every student in the records with a teacher (for one without, `own` is its mean over all teachers)."""
    found = []
    for student in dict.fromkeys(r.student for r in records if r.relation in (OWN, WITHOUT)):
        mine = [r for r in records if r.student == student and r.estimator == "debiased"]
        own = [r for r in mine if r.relation in (OWN, WITHOUT)]
        biased = [
            r for r in records if r.student == student and r.estimator == "biased" and r.relation in (OWN, WITHOUT)
        ]
        value, se = mean_over_tasks(own)
        teacher = own[0].teacher if own and own[0].relation == OWN else ""
        found.append(
            Alike(
                student,
                teacher,
                value,
                float(norm.ppf(0.5 + level / 2)) * se,
                mean_over_tasks([r for r in mine if r.relation == OTHER])[0],
                mean_over_tasks([r for r in mine if r.relation == UNTRAINED])[0],
                mean_over_tasks([r for r in mine if r.relation == SEEDS])[0],
                mean_over_tasks(biased)[0],
                len({r.task for r in own}),
            )
        )
    return found


def cka_points(study: Study, found: Sequence[Alike], level: float) -> list[dict[str, Any]]:
    """Similarity beside score for each student that has both."""
    by_name = {a.student: a for a in found if not math.isnan(a.own)}
    told = labels(e.encoder for entries in study.measures.values() for e in entries)
    points = []
    for measure, entries in study.measures.items():
        for entry in entries:
            if (a := by_name.get(entry.encoder.full)) and entry.encoder.kind == "student":
                score = normal(entry.suite, level)
                points.append(
                    {
                        "measure": measure,
                        "label": told[entry.encoder.full],
                        "teacher": entry.encoder.family,
                        "arch": entry.encoder.arch,
                        "cka": a.own,
                        "cka_half": a.own_half,
                        "score": 100 * score.value,
                        "score_half": 100 * (score.high - score.value),
                    }
                )
    return points


def cka_table(records: Sequence[Record], level: float) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Task -> relation -> (value, half width) of every pair, debiased."""
    from kd_analysis.tasks import in_order

    z = float(norm.ppf(0.5 + level / 2))
    table: dict[str, dict[str, list[tuple[float, float]]]] = {t: {} for t in in_order({r.task for r in records})}
    for r in records:
        if r.estimator == "debiased" and r.value is not None:
            half = z * r.se if r.se is not None else 0.0
            table[r.task].setdefault(r.relation, []).append((r.value, half))
    return table
