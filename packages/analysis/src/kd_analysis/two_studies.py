"""Two studies of one question, cell by cell: what both have of a student, its teacher and a language model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from kd_analysis.compare import plain
from kd_analysis.grid import Grid, Training, training_of
from kd_analysis.results import NO_TEACHER, SCORE, Result
from kd_analysis.scores import InputError
from kd_analysis.table import Cell, Column, Row, Table, blocks, half_width, resolvable, row
from kd_analysis.tasks import AVERAGE, IMAGENET, IMAGENET_IMAGES, TASKS, averaged, task_of

MEASURES = (AVERAGE, IMAGENET)  # of a VLM, of an encoder alone
ORDER = {task: i for i, task in enumerate((IMAGENET, AVERAGE, *TASKS))}


class Where(NamedTuple):
    """What the same cell of two studies shares, in letters and digits; no language model for an encoder alone."""

    llm: str
    teacher: str
    student: str


Choice = Mapping[str, str]  # of a study's students: what stands in these columns (`CHOSEN_BY`) of its results
CHOSEN_BY = ("loss", "dataset", "epochs", "framework")


@dataclass(frozen=True)
class Side:
    """One study: the scores of its students under one training, at its end, by cell and task."""

    name: str
    training: Training
    cells: Mapping[Where, Mapping[str, Result]]


def side(name: str, results: Sequence[Result], choice: Choice, names: Mapping[str, str]) -> Side:
    """The students of a study that `choice` leaves, under the training that most of them share; seeds taken together.

    Args:
        name: Of the study, for messages.
        results: All that it has.
        choice: Of its students. Where nothing is chosen, what most of them have.
        names: What teachers, students and language models are called in the other study, where not the same.

    Raises:
        InputError: If there is none, or a cell has VLMs of several frameworks and none of the one that most have.
    """
    grid = Grid([r for r in results if _takes(choice, r)])
    main = grid.main()
    if not main.student or ("framework" in choice and not main.place.framework):
        raise InputError(f"{name}: expected scores of students with {_said(choice)}; it has {_there(results)}.")
    found: dict[Where, dict[str, Result]] = {}
    for r in grid.results:
        if r.metric == SCORE and r.student and r.teacher != NO_TEACHER and training_of(r) == main.training:
            where = Where(*(plain(names.get(part, part)) for part in (r.llm, r.teacher, r.student)))
            tasks = found.setdefault(where, {})
            tasks[r.task] = _preferred(name, tasks.get(r.task, r), r, main.place.framework)
    return Side(name, main.training, found)


def _chosen_by(r: Result) -> dict[str, str]:
    """A result under the columns of `CHOSEN_BY`; empty where it has no student, or no VLM."""
    epochs = f"{r.epochs:g}" if r.student else ""
    return {"loss": r.loss, "dataset": r.dataset, "epochs": epochs, "framework": r.framework}


def _takes(choice: Choice, r: Result) -> bool:
    alike = {key: str if key == "epochs" else plain for key in CHOSEN_BY}  # 1.5 is not 15
    said = _chosen_by(r)
    return all(not said[key] or alike[key](said[key]) == alike[key](value) for key, value in choice.items())


def _preferred(name: str, one: Result, two: Result, framework: str) -> Result:
    """Of VLMs of several frameworks that of the one which most have."""
    if one is two or framework == two.framework:
        return two
    if framework == one.framework:
        return one
    raise InputError(f"{name}: {one.named} has also {two.framework}; expected a framework to be chosen.")


def _said(choice: Choice) -> str:
    return ", ".join(f"{key} {value}" for key, value in choice.items()) or "a teacher"


def _there(results: Sequence[Result]) -> str:
    students = [_chosen_by(r) for r in results if r.student]
    found = {key: sorted({one[key] for one in students} - {""}) for key in CHOSEN_BY}
    return "; ".join(f"{key} {', '.join(some) or '(none)'}" for key, some in found.items())


def pairs(one: Side, two: Side) -> Iterator[tuple[Where, Result, Result]]:
    """The scores that both have, cell by cell: of equally many items where both say how many, averages of the same
    benchmarks.
    """
    for where, tasks in one.cells.items():
        theirs = two.cells.get(where, {})
        for task in sorted(tasks.keys() & theirs.keys(), key=lambda t: ORDER.get(t, len(ORDER))):
            mine, other = tasks[task], theirs[task]
            if task == AVERAGE and averaged(tasks) != averaged(theirs):
                continue
            if mine.n == other.n or not (mine.n and other.n):
                yield where, mine, other


def tables(one: Side, two: Side, families: Mapping[str, Sequence[str]], level: float = 0.95) -> list[Table]:
    """What a better teacher gains in each, the averages, and every score; those with a row.

    Args:
        one: A study.
        two: Another.
        families: Teachers from smaller to larger, by the names that the two share.
        level: Of the intervals.
    """
    both = list(pairs(one, two))
    found = [_gains(one, two, both, families, level), _averages(one, two, both, level), _scores(one, two, both, level)]
    return [table for table in found if not table.empty]


def _columns(one: Side, two: Side) -> tuple[Column, ...]:
    titles = [(a, b) for a, b in zip(one.training[:2], two.training[:2], strict=True) if a != b]
    first, second = titles[0] if titles else ("", "")
    return (
        Column("first", first or "First", better=""), Column("second", second or "Second", better=""),
        Column("difference", "Difference", better="", signed=True),
    )  # fmt: skip


def _caption(one: Side, two: Side, level: float) -> str:
    said = "; ".join(f"{side.name}: {_how(side.training)}" for side in (one, two))
    return (
        f"{said}. ±: half of the {100 * level:.0f} % interval, over items, and over trainings where a study has "
        "several seeds. Both are scored on the same items, which the interval of the difference makes no use of: it is "
        "rather too wide."
    )


def _how(training: Training) -> str:
    length = f"{training.epochs:g} epochs" if training.epochs else ""
    return ", ".join(filter(None, (training.loss, training.dataset, length)))


def _row(labels: Sequence[str], first: Cell, second: Cell) -> Row:
    difference = Cell(first.value - second.value, math.hypot(first.half, second.half))
    cells: dict[str, Cell | None] = {"first": first, "second": second, "difference": difference}
    return row(labels, cells, {"resolvable": resolvable(difference)})


def _cell(r: Result, level: float) -> Cell:
    return Cell(r.value, half_width(r.se, level))


def _scores(one: Side, two: Side, both: Sequence[tuple[Where, Result, Result]], level: float) -> Table:
    found: dict[str, list[Row]] = {}
    for _, mine, other in both:
        title = ", ".join(filter(None, (mine.llm, f"{mine.student} from {mine.teacher}")))
        found.setdefault(title, []).append(_row([_title(mine)], _cell(mine, level), _cell(other, level)))
    return Table(
        "beside_scores", "Every score", _caption(one, two, level), ("Task",), _columns(one, two),
        blocks(list(found.items())), (("resolvable", "Resolvable"),),
    )  # fmt: skip


def _averages(one: Side, two: Side, both: Sequence[tuple[Where, Result, Result]], level: float) -> Table:
    found: dict[str, list[Row]] = {}
    for _, mine, other in both:
        if mine.task in MEASURES:
            labels = (mine.student, mine.teacher)
            found.setdefault(_measure(mine), []).append(_row(labels, _cell(mine, level), _cell(other, level)))
    return Table(
        "beside_averages", "The averages", _caption(one, two, level), ("Student", "Teacher"), _columns(one, two),
        blocks(list(found.items())), (("resolvable", "Resolvable"),),
    )  # fmt: skip


def _measure(r: Result) -> str:
    return ", ".join(filter(None, (r.llm, _title(r))))


def _title(r: Result) -> str:
    """ImageNet is what has its 50,000 images."""
    return "Zero-shot" if r.task == IMAGENET and r.n != IMAGENET_IMAGES else task_of(r.task).title


def _gains(
    one: Side,
    two: Side,
    both: Sequence[tuple[Where, Result, Result]],
    families: Mapping[str, Sequence[str]],
    level: float,
) -> Table:
    known = {(where, mine.task): (mine, other) for where, mine, other in both if mine.task in MEASURES}
    found: dict[str, list[Row]] = {}
    for small, large in (step for members in families.values() for step in pairwise(members)):
        for (where, task), lesser in known.items():
            better = known.get((where._replace(teacher=plain(large)), task))
            if where.teacher == plain(small) and better:
                gains = [_minus(b, a, level) for a, b in zip(lesser, better, strict=True)]
                line = _row([lesser[0].student, f"{lesser[0].teacher} to {better[0].teacher}"], *gains)
                found.setdefault(_measure(lesser[0]), []).append(line)
    columns = tuple(Column(c.key, c.title, better="", signed=True) for c in _columns(one, two))
    return Table(
        "beside_gains", "What the better teacher gains in each", _caption(one, two, level), ("Student", "Teachers"),
        columns, blocks(list(found.items())), (("resolvable", "Resolvable"),),
    )  # fmt: skip


def _minus(large: Result, small: Result, level: float) -> Cell:
    return Cell(large.value - small.value, half_width(math.hypot(large.se, small.se), level))
