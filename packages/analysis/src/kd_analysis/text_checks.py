"""What a paper's text says against what its tables print."""

from collections.abc import Iterable, Sequence

from kd_analysis.grid import Grid, Training
from kd_analysis.inconsistencies import Inconsistency, size_of
from kd_analysis.paper import (
    Said,
    SaidBest,
    SaidCheckpoint,
    SaidGap,
    SaidRange,
    SaidRatios,
    SaidScore,
    SaidSpelling,
)
from kd_analysis.results import Result
from kd_analysis.tasks import AVERAGE, task_of


def in_text(said: Sequence[Said], grid: Grid) -> list[Inconsistency]:
    """Every statement that the tables contradict."""
    found: list[Inconsistency] = []
    for one in said:
        match one:
            case SaidGap():
                found += _gap(one, grid)
            case SaidScore():
                found += _score(one, grid)
            case SaidRange():
                found += _range(one, grid)
            case SaidRatios():
                found += _ratios(one, grid)
            case SaidBest():
                found += _best(one, grid)
            case SaidCheckpoint():
                found += _checkpoint(one)
            case SaidSpelling():
                pass
    return [*found, *_spellings([s for s in said if isinstance(s, SaidSpelling)])]


def _differs(said: float, value: float, digits: int) -> bool:
    return abs(said - value) > 0.5 * 10**-digits + 1e-9


def _gap(said: SaidGap, grid: Grid) -> Iterable[Inconsistency]:
    main = grid.main()
    own = grid.average(main.place, said.teacher)
    student = grid.average(main.place, said.teacher, said.student, main.training)
    if own and student and _differs(said.value, gap := own.value - student.value, said.digits):
        yield Inconsistency(
            "text against table", said.where, f"gap to {said.teacher} {said.value:g}",
            f"{own.value:g} - {student.value:g} = {gap:.2f} by Tables 1 and 2",
        )  # fmt: skip


def _score(said: SaidScore, grid: Grid) -> Iterable[Inconsistency]:
    main = grid.main()
    training = main.training._replace(dataset=said.dataset)
    result = _at(grid, said.task, said.teacher, said.student, training)
    if result and _differs(said.value, result.value, said.digits):
        yield Inconsistency(
            "text against table", said.where, f"{said.teacher} on {said.dataset}: {said.value:g}",
            f"{result.value:g} in {result.table}",
        )  # fmt: skip


def _at(grid: Grid, task: str, teacher: str, student: str, training: Training) -> Result | None:
    main = grid.main()
    multimodal = grid.average(main.place, teacher, student, training)
    return multimodal if task == AVERAGE else grid.get(task, teacher, student, training)


def _range(said: SaidRange, grid: Grid) -> Iterable[Inconsistency]:
    training = grid.main().training._replace(epochs=said.epochs, epoch=said.epochs)
    for teacher in said.teachers:
        result = _at(grid, said.task, teacher, said.student, training)
        if result and not said.low - 1 <= result.value <= said.high + 1:
            yield Inconsistency(
                "text against table", said.where,
                f"{said.low:g} to {said.high:g} {task_of(said.task).title} after {said.epochs} epochs from {teacher}",
                f"{result.value:g} in {result.table}: an epoch inside a longer schedule is not the end of a short one",
            )  # fmt: skip


def _ratios(said: SaidRatios, grid: Grid) -> Iterable[Inconsistency]:
    """Student / teacher must be i / k for whole i, where k is how many units one of the teachers got right."""
    main, units = grid.main(), task_of(said.task).units
    own = [grid.get(said.task, t, place=main.place) for t in said.teachers]
    rights = {round(r.value * units / 100): r.teacher for r in own if r}
    for value in said.values:
        near = {k: round(value * k) / k for k in rights}
        if all(_differs(value, ratio, 2) for ratio in near.values()):
            options = ", ".join(f"{ratio:.3f} of {k}" for k, ratio in near.items())
            yield Inconsistency(
                "a ratio that no count gives", said.where, f"{task_of(said.task).title}: {value:g} of the teacher",
                f"teachers have {' and '.join(map(str, rights))} of {units} right; nearest are {options}",
            )  # fmt: skip


def _best(said: SaidBest, grid: Grid) -> Iterable[Inconsistency]:
    main = grid.main()
    rivals = [t for t in grid.trainings if t._replace(loss=said.loss) == main.training._replace(loss=said.loss)]
    for task in said.tasks:
        lost, asked = [], 0
        for teacher in grid.teachers:
            scores = {t.loss: r.value for t in rivals if (r := _at(grid, task, teacher, main.student, t))}
            if len(scores) > 1 and said.loss in scores:
                asked += 1
                best = max(scores, key=lambda k: scores[k])
                if scores[best] > scores[said.loss]:
                    lost.append(f"{best} for {teacher} ({scores[best]:g} against {scores[said.loss]:g})")
        if lost:
            yield Inconsistency(
                "text against table", said.where, f"{said.loss} is the best loss on {task_of(task).title}",
                f"for {asked - len(lost)} of {asked} teachers; {', '.join(lost)}",
            )  # fmt: skip


def _checkpoint(said: SaidCheckpoint) -> Iterable[Inconsistency]:
    """The size that a label names and the size that its checkpoint names."""
    label, checkpoint = size_of(said.model), size_of(said.checkpoint)
    if label and checkpoint and label != checkpoint:
        yield Inconsistency(
            "a label with another size's checkpoint", said.where, f"{said.model} is {said.checkpoint}",
            f"the label says ViT-{label}, the checkpoint ViT-{checkpoint}",
        )  # fmt: skip


def _spellings(said: Sequence[SaidSpelling]) -> Iterable[Inconsistency]:
    for thing in dict.fromkeys(s.of for s in said):
        printed: dict[str, list[str]] = {}
        for s in said:
            if s.of == thing:
                printed.setdefault(s.printed, []).append(s.where)
        if set(printed) != {thing}:
            ways = "; ".join(f"{form} ({', '.join(where)})" for form, where in printed.items())
            yield Inconsistency("a name in other spellings", "headings", ways, f"the name is {thing}")
