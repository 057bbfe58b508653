"""How far behind its teacher a student stays: the gap, and student / teacher, with errors."""

import itertools
import math
from dataclasses import dataclass

from kd_analysis.grid import ALONE, Grid, Place, Training
from kd_analysis.results import Result
from kd_analysis.stats import Estimate, from_error
from kd_analysis.tasks import AVERAGE, GROUPS, IMAGENET, task_of


@dataclass(frozen=True)
class Relative:
    """One student beside its teacher on one measure.

    Attributes:
        where: Framework and language model.
        measure: "average", "imagenet", a task, or a group of tasks.
        gap: Teacher minus student in points.
        ratio: Student / teacher; its error by the delta method. NaN where the teacher scores nothing.
    """

    where: str
    teacher: str
    student: str
    training: Training
    measure: str
    teacher_points: float
    student_points: float
    gap: Estimate
    ratio: Estimate


def ratio(student: float, student_se: float, teacher: float, teacher_se: float, level: float = 0.95) -> Estimate:
    """Student / teacher with the error of a quotient of two independent scores (delta method)."""
    if not teacher > 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, level, "delta method")
    value = student / teacher
    return from_error(value, math.hypot(student_se, value * teacher_se) / teacher, level, "delta method")


def relatives(grid: Grid, level: float = 0.95) -> list[Relative]:
    """Every student at every place: the average, each group, each task; and ImageNet of the encoder alone."""
    found = []
    for place, student, training in itertools.product((*grid.places, ALONE), grid.students, grid.trainings):
        for teacher in grid.teachers:
            for measure, one, two in _measures(grid, place, teacher, student, training):
                found.append(_relative(place, teacher, student, training, measure, one, two, level))
    return found


Side = tuple[float, float]  # points and their error


def _measures(grid: Grid, place: Place, teacher: str, student: str, training: Training) -> list[tuple[str, Side, Side]]:
    measures = [IMAGENET] if place == ALONE else [AVERAGE, *grid.tasks()]
    found = []
    for measure in measures:
        own = grid.get(measure, teacher, place=place)
        distilled = grid.get(measure, teacher, student, training, place)
        if own and distilled:
            found.append((measure, _side([own]), _side([distilled])))
    for group in GROUPS if place != ALONE else ():
        tasks = [t for t in grid.tasks() if task_of(t).group == group]
        both = [[grid.get(t, teacher, place=place) for t in tasks]]
        both.append([grid.get(t, teacher, student, training, place) for t in tasks])
        one, two = ([r for r in side if r is not None] for side in both)
        if tasks and len(one) == len(two) == len(tasks):
            found.append((group, _side(one), _side(two)))
    return found


def _side(results: list[Result]) -> Side:
    count = len(results)
    return sum(r.points for r in results) / count, math.sqrt(sum(r.points_se**2 for r in results)) / count


def _relative(
    place: Place, teacher: str, student: str, training: Training, measure: str, own: Side, distilled: Side, level: float
) -> Relative:
    gap = from_error(own[0] - distilled[0], math.hypot(own[1], distilled[1]), level)
    quotient = ratio(*distilled, *own, level)
    return Relative(place.named, teacher, student, training, measure, own[0], distilled[0], gap, quotient)
