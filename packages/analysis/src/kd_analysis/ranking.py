"""Do better teachers make better students? By rank, over all teachers at once."""

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from kd_analysis.grid import Grid, Place, Training
from kd_analysis.ranks import RankCorrelation, concordance, kendall, spearman
from kd_analysis.results import Result
from kd_analysis.stats import sign_test
from kd_analysis.tasks import AVERAGE, IMAGENET

FEWEST = 3  # teachers; with fewer there is no rank correlation to test


@dataclass(frozen=True)
class Relation:
    """Two quantities over the same teachers (students, tasks), by rank.

    Attributes:
        x: What is related, with `y`; for instance "teacher average".
        where: Framework, language model, loss or student that it holds for.
        pairs: How many pairs are concordant, discordant and tied.
        slope: Of y on x by least squares.
        least_p: The smallest two-sided p that so few values can reach.
    """

    x: str
    y: str
    where: str
    spearman: RankCorrelation
    kendall: RankCorrelation
    pearson: float
    slope: float
    pairs: tuple[int, int, int]

    @property
    def n(self) -> int:
        return self.spearman.n

    @property
    def least_p(self) -> float:
        return 2 / math.factorial(self.n)


Series = dict[str, float]  # by teacher


def relation(x: str, y: str, where: str, one: Series, two: Series, seed: int) -> Relation | None:
    """The relation over the members that both have; None with fewer than three.

    Above 8 members p is drawn from (seed, x, y, where) alone, so that no relation changes another.
    """
    common = [t for t in one if t in two]
    if len(common) < FEWEST:
        return None
    a, b = ([round(s[t], 9) for t in common] for s in (one, two))
    flat = len(set(a)) == 1 or len(set(b)) == 1
    fit = None if flat else scipy_stats.linregress(a, b)
    rng = np.random.default_rng([seed, zlib.crc32(f"{x}|{y}|{where}".encode())])
    return Relation(
        x, y, where, spearman(a, b, rng), kendall(a, b, rng),
        float(fit.rvalue) if fit else math.nan, float(fit.slope) if fit else math.nan, concordance(a, b),
    )  # fmt: skip


# ---------------------------------------------------------------- what a teacher and its student have


def teacher_average(grid: Grid, place: Place) -> Series:
    return _series(grid.teachers, lambda t: grid.average(place, t))


def teacher_imagenet(grid: Grid) -> Series:
    return _series(grid.teachers, lambda t: grid.imagenet(t))


def teacher_size(grid: Grid) -> Series:
    return _series(grid.teachers, grid.size)


def student_average(grid: Grid, place: Place, student: str, training: Training) -> Series:
    return _series(grid.teachers, lambda t: grid.average(place, t, student, training))


def student_imagenet(grid: Grid, student: str, training: Training) -> Series:
    return _series(grid.teachers, lambda t: grid.imagenet(t, student, training))


def _series(teachers: Iterable[str], of: Callable[[str], Result | None]) -> Series:
    found = {t: of(t) for t in teachers}
    return {t: r.points for t, r in found.items() if r is not None and not math.isnan(r.value)}


# ---------------------------------------------------------------- the relations of the question


def relations(grid: Grid, seed: int) -> list[Relation]:
    """Teachers against the students of the main condition, for every language model, loss and framework there is."""
    main = grid.main()
    found = [*_at_places(grid, seed), *_between_places(grid, seed), *_by_loss(grid, seed), *_over_students(grid, seed)]
    size, top1 = teacher_size(grid), student_imagenet(grid, main.student, main.training)
    found.append(relation("teacher size", f"student {grid.top1}", main.student, size, top1, seed))
    found.append(
        relation(f"teacher {grid.top1}", f"student {grid.top1}", main.student, teacher_imagenet(grid), top1, seed)
    )
    return [r for r in found if r is not None]


def _at_places(grid: Grid, seed: int) -> Iterable[Relation | None]:
    main = grid.main()
    top1 = student_imagenet(grid, main.student, main.training)
    for place in grid.places:
        student = student_average(grid, place, main.student, main.training)
        if not student:
            continue
        teacher, where = teacher_average(grid, place), f"{place.named}, {main.student}"
        gap = {t: teacher[t] - student[t] for t in teacher if t in student}
        yield relation("teacher average", "student average", where, teacher, student, seed)
        yield relation("teacher average", f"student {grid.top1}", where, teacher, top1, seed)
        yield relation("teacher size", "student average", where, teacher_size(grid), student, seed)
        yield relation(f"student {grid.top1}", "student average", where, top1, student, seed)
        yield relation("teacher average", "gap", where, teacher, gap, seed)
        for other in grid.places:
            if other.llm == place.llm and other != place:
                far = teacher_average(grid, other)
                yield relation(f"teacher average in {other.framework}", "student average", where, far, student, seed)


def _between_places(grid: Grid, seed: int) -> Iterable[Relation | None]:
    main = grid.main()
    for one, two in itertools.combinations(grid.places, 2):
        if (one.llm == two.llm) == (one.framework == two.framework):
            continue  # they differ in both or in nothing
        names = (one.llm, two.llm) if one.framework == two.framework else (one.framework, two.framework)
        where = one.framework if one.framework == two.framework else one.llm
        left, right = (teacher_average(grid, p) for p in (one, two))
        yield relation(f"teacher average, {names[0]}", f"teacher average, {names[1]}", where, left, right, seed)
        left, right = (student_average(grid, p, main.student, main.training) for p in (one, two))
        x, y = (f"student average, {n}" for n in names)
        yield relation(x, y, f"{where}, {main.student}", left, right, seed)


def _by_loss(grid: Grid, seed: int) -> Iterable[Relation | None]:
    main = grid.main()
    same = [t for t in grid.trainings if t._replace(loss=main.training.loss) == main.training]
    if len(same) < 2:
        return
    for training in same:
        teacher = teacher_average(grid, main.place)
        where = f"{main.place.named}, {main.student}, loss {training.loss}"
        student = student_average(grid, main.place, main.student, training)
        yield relation("teacher average", "student average", where, teacher, student, seed)
        top1 = student_imagenet(grid, main.student, training)
        yield relation("teacher average", f"student {grid.top1}", where, teacher, top1, seed)


def _over_students(grid: Grid, seed: int) -> Iterable[Relation | None]:
    training = grid.main().training
    for place in grid.places:
        top1, average = {}, {}
        for student, teacher in itertools.product(grid.students, grid.teachers):
            one, two = grid.imagenet(teacher, student, training), grid.average(place, teacher, student, training)
            if one and two:
                top1[f"{student} {teacher}"], average[f"{student} {teacher}"] = one.points, two.points
        if len(grid.students) > 1:
            where = f"{place.named}, all students"
            yield relation(f"student {grid.top1}", "student average", where, top1, average, seed)


# ---------------------------------------------------------------- pairs and tasks


@dataclass(frozen=True)
class Pairs:
    """Over all students and all pairs of their teachers: did the better teacher have the better student?"""

    where: str
    measure: str
    better: int
    worse: int
    ties: int


def teacher_pairs(grid: Grid) -> list[Pairs]:
    """The better teacher is the one whose own VLM has the higher average (without VLMs: the higher ImageNet score)."""
    training, found = grid.main().training, []
    for place in grid.places or (Place("", ""),):
        quality = teacher_average(grid, place) if grid.places else teacher_imagenet(grid)
        averages = {s: student_average(grid, place, s, training) for s in grid.students}
        if grid.places and not any(averages.values()):
            continue
        top1 = {s: student_imagenet(grid, s, training) for s in grid.students}
        for measure, by_student in ((AVERAGE, averages), (IMAGENET, top1)):
            counts = np.zeros(3, dtype=int)
            for scores in by_student.values():
                common = [t for t in quality if t in scores]
                counts += concordance(*([round(s[t], 9) for t in common] for s in (quality, scores)))
            if counts.any():
                found.append(Pairs(place.named, measure, *(int(c) for c in counts)))
    return found


@dataclass(frozen=True)
class ByTask:
    """Spearman of teacher and student score over the teachers, one a task, and the sign test over tasks."""

    where: str
    by_task: dict[str, float]
    mean: float
    median: float
    up: int
    down: int
    zero: int
    sign_p: float


def by_task(grid: Grid) -> list[ByTask]:
    """For the main student at every place; nothing with fewer than three teachers."""
    found = []
    for place in grid.places:
        values = {}
        for task in grid.tasks():
            one, two = _on_task(grid, task, place)
            common = [t for t in one if t in two]
            if len(common) >= FEWEST:
                x, y = (scipy_stats.rankdata([s[t] for t in common]) for s in (one, two))
                values[task] = float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) * np.ptp(y) > 0 else 0.0
        if values:
            every = [round(v, 9) for v in values.values()]
            up, down, zero, p = sign_test(every)
            found.append(
                ByTask(place.named, values, float(np.mean(every)), float(np.median(every)), up, down, zero, p)
            )  # fmt: skip
    return found


def _on_task(grid: Grid, task: str, place: Place) -> tuple[Series, Series]:
    main = grid.main()
    own = _series(grid.teachers, lambda t: grid.get(task, t, place=place))
    return own, _series(grid.teachers, lambda t: grid.get(task, t, main.student, main.training, place))


def similarity_changes(results: Sequence[Result], smaller: str, larger: str) -> dict[str, tuple[float, float]]:
    """For each task with both: (change of the score, change of CKA) from the smaller teacher's student to the larger's.

    Takes results as they stand (for instance one printed table), not a grid: a table may contradict the others.
    """
    value = {(r.task, r.metric, r.teacher): r.value for r in results if r.student}
    tasks = dict.fromkeys(r.task for r in results if r.metric == "cka")
    found = {}
    for task in tasks:
        four = [value.get((task, m, t)) for m in ("score", "cka") for t in (smaller, larger)]
        if None not in four:
            a, b, c, d = (float(v) for v in four if v is not None)
            found[task] = (b - a, d - c)
    return found
