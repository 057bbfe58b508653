"""What a larger or another teacher changes in a student, with what the scores' errors can resolve.

Published scores come without item outputs, so these differences are unpaired: an upper bound of their error. Where
items are there, `claims` pairs them.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kd_analysis.grid import Grid, Place
from kd_analysis.results import Result
from kd_analysis.stats import (
    Estimate,
    from_error,
    holm,
    mean_over_tasks,
    minimum_detectable_difference,
    sign_test,
    wilcoxon,
)
from kd_analysis.tasks import AVERAGE, IMAGENET


@dataclass(frozen=True)
class OverTasks:
    """The change task by task: how many go up, down and nowhere; sign and Wilcoxon tests; tasks resampled."""

    up: int
    down: int
    tie: int
    sign_p: float
    wilcoxon_p: float
    estimate: Estimate


@dataclass(frozen=True)
class Change:
    """One student's score from teacher `to` minus that from teacher `of`, in points.

    Attributes:
        where: Framework and language model.
        measure: "average" or "imagenet".
        estimate: The change with its interval over items.
        detectable: The smallest true change that would be found four times out of five.
        p_holm: Adjusted within the list that this stands in.
        tasks: None for ImageNet and where only averages are known.
    """

    where: str
    student: str
    of: str
    to: str
    measure: str
    estimate: Estimate
    detectable: float
    p_holm: float
    tasks: OverTasks | None

    @property
    def verdict(self) -> str:
        return "no error known" if math.isnan(self.estimate.se) else self.estimate.verdict


def family_changes(
    grid: Grid, families: Mapping[str, Sequence[str]], rng: np.random.Generator, level: float = 0.95
) -> list[Change]:
    """For every student and place: each family's next larger teacher against the smaller one. Holm over all of them.

    Args:
        grid: The results.
        families: Teachers of one family by its name, the smallest first.
        rng: For resampling tasks.
        level: Of the intervals.
    """
    pairs = [pair for members in families.values() for pair in itertools.pairwise(members)]
    return _changes(grid, pairs, grid.students, rng, level)


def pair_changes(grid: Grid, rng: np.random.Generator, level: float = 0.95) -> list[Change]:
    """The main student under every pair of its teachers, the one with the better average second. Holm over all."""
    main = grid.main()

    def quality(teacher: str) -> tuple[float, int]:
        own = grid.average(main.place, teacher) or grid.imagenet(teacher)
        return (own.points if own else math.nan, -grid.teachers.index(teacher))

    ordered = sorted(grid.teachers, key=quality)
    return _changes(grid, list(itertools.combinations(ordered, 2)), [main.student], rng, level)


def _changes(
    grid: Grid, pairs: Sequence[tuple[str, str]], students: Sequence[str], rng: np.random.Generator, level: float
) -> list[Change]:
    training = grid.main().training
    found: list[Change | None] = []
    for place in grid.places:
        for student, pair in itertools.product(students, pairs):
            sides = [grid.average(place, t, student, training) for t in pair]
            tasks = _tasks(grid, place, student, pair, rng, level)
            found.append(_change(place.named, student, pair, AVERAGE, sides, tasks, level))
    for student, pair in itertools.product(students, pairs):
        sides = [grid.imagenet(t, student, training) for t in pair]
        found.append(_change("encoder alone", student, pair, IMAGENET, sides, None, level))
    return _adjusted([c for c in found if c is not None])


def _change(
    where: str,
    student: str,
    teachers: tuple[str, str],
    measure: str,
    sides: Sequence[Result | None],
    tasks: OverTasks | None,
    level: float,
) -> Change | None:
    of, to = sides
    if of is None or to is None:
        return None
    estimate = from_error(to.points - of.points, math.hypot(of.points_se, to.points_se), level)
    detectable = minimum_detectable_difference(estimate.se, level)
    return Change(where, student, *teachers, measure, estimate, detectable, estimate.p, tasks)


def _tasks(
    grid: Grid, place: Place, student: str, teachers: tuple[str, str], rng: np.random.Generator, level: float
) -> OverTasks | None:
    training = grid.main().training
    some = [[grid.get(task, t, student, training, place) for t in teachers] for task in grid.tasks()]
    moves = [round(to.points - of.points, 9) for of, to in some if of and to]
    if len(moves) < 2:
        return None
    up, down, tie, p = sign_test(moves)
    return OverTasks(up, down, tie, p, wilcoxon(moves), mean_over_tasks(moves, rng, level=level))


def _adjusted(changes: Sequence[Change]) -> list[Change]:
    """Holm over the averages and, apart from them, over ImageNet; a change without error stays out."""
    found = list(changes)
    for measure in (AVERAGE, IMAGENET):
        family = {str(i): c.estimate.p for i, c in enumerate(found) if c.measure == measure}
        known = {i: p for i, p in family.items() if not math.isnan(p)}
        for i, p in holm(known).items():
            found[int(i)] = replace(found[int(i)], p_holm=p)
    return found
