"""Tables 1 to 5 of the study, each a function of the results by cell."""

import itertools
import math
from collections.abc import Mapping, Sequence

from kd_analysis.grid import PRETRAINED, Grid, Place, Training
from kd_analysis.results import NO_TEACHER, Result
from kd_analysis.table import Cell, Column, Row, Table, blocks, cell, half_width, resolvable, row, with_data
from kd_analysis.tasks import AVERAGE, IMAGENET, task_of

MME = "MME-P lies between 0 and 2000 and counts as its score over 20 in the Average, the plain mean of the tasks."


def all_tables(grid: Grid, families: Mapping[str, Sequence[str]], level: float = 0.95) -> list[Table]:
    """The tables that the results fill, in order."""
    found = [
        encoders(grid, level), students(grid, level), similarity(grid, families, level), losses(grid, level),
        data_sets(grid, level),
    ]  # fmt: skip
    return [t for t in found if not t.empty]


def _task_columns(grid: Grid) -> list[Column]:
    return [Column(t, task_of(t).title, task_of(t).group) for t in grid.tasks()]


def _cells(
    grid: Grid, place: Place, teacher: str, student: str, training: Training, level: float
) -> dict[str, Cell | None]:
    keys = (AVERAGE, *grid.tasks())
    return {k: cell(grid.get(k, teacher, student, training, place), level) for k in keys}


def _caption(text: str, level: float) -> str:
    return f"{text} Bold: the best of its block; underlined: the second. ±: half of the {100 * level:.0f} % interval."


def encoders(grid: Grid, level: float = 0.95) -> Table:
    """Table 1: VLMs on pretrained encoders, a block a framework and language model."""
    found = []
    for place in grid.places:
        rows = [
            row([e], {"params_m": _size(grid, e), **_cells(grid, place, e, "", PRETRAINED, level)})
            for e in grid.encoders
        ]
        found.append((place.named, [r for r in rows if set(r.cells) - {"params_m"}]))
    kept = blocks(found)
    columns = [Column("params_m", "Params (M)", digits=1, better=""), Column(AVERAGE, "Average"), *_task_columns(grid)]
    caption = _caption(f"VLMs on pretrained vision encoders. {MME}", level)
    return Table("table1", "Pretrained encoders", caption, ("Encoder",), with_data(columns, kept), kept)


def _size(grid: Grid, encoder: str) -> Cell | None:
    size = grid.size(encoder)
    return Cell(size.value) if size else None


def students(grid: Grid, level: float = 0.95) -> Table:
    """Table 2: every student under every teacher at the main training; students without a teacher last."""
    main, found = grid.main(), []
    taught = [(s, t, main.training) for s in grid.students for t in grid.teachers]
    alone = [(s, NO_TEACHER, training) for s, training in grid.alone()]
    for place in grid.places or (main.place,):
        rows = []
        for student, teacher, training in [*taught, *alone]:
            cells = _cells(grid, place, teacher, student, training, level)
            if grid.places and not any(cells.values()):
                continue
            top1 = cell(grid.imagenet(teacher, student, training), level)
            rows.append(row([student, teacher], {IMAGENET: top1, **cells}))
        found.append((place.named, rows))
    kept = blocks(found)
    columns = [Column(IMAGENET, _top1(grid)), Column(AVERAGE, "Average"), *_task_columns(grid)]
    caption = _caption(f"Students by teacher{_training(main.training)}. {MME}", level)
    return Table("table2", "Students and teachers", caption, ("Student", "Teacher"), with_data(columns, kept), kept)


def _training(training: Training) -> str:
    parts = (training.loss, training.dataset, f"{training.epochs:g} epochs" if training.epochs else "")
    told = ", ".join(filter(None, parts))
    return f" ({told})" if told else ""


def similarity(grid: Grid, families: Mapping[str, Sequence[str]], level: float = 0.95) -> Table:
    """Table 3: score and CKA of the main student, from each teacher of a family to the next larger one, by task."""
    main, found = grid.main(), []
    for members in families.values():
        for small, large in itertools.pairwise(members):
            rows = [_similarity_row(grid, task, small, large, level) for task in (*grid.tasks(), IMAGENET)]
            found.append((f"{small} to {large}", [r for r in rows if r]))
    kept = blocks(found)
    small, large = "First teacher", "Second teacher"
    columns = [
        Column("small_score", "Score", small, better=""), Column("small_cka", "CKA", small, 3, ""),
        Column("large_score", "Score", large, better=""), Column("large_cka", "CKA", large, 3, ""),
        Column("score_change", "Score", "Change", better="", signed=True),
        Column("cka_change", "CKA", "Change", 3, "", signed=True),
    ]  # fmt: skip
    caption = (
        f"{main.student}: score and CKA with its teacher, from the first (smaller) teacher to the second. "
        "Changes are unpaired here. "
        f"±: half of the {100 * level:.0f} % interval."
    )
    texts = (("resolvable", "Score change resolvable"),)
    return Table("table3", "Similarity and score", caption, ("Task",), with_data(columns, kept), kept, texts)


def _similarity_row(grid: Grid, task: str, small: str, large: str, level: float) -> Row | None:
    main = grid.main()
    if task == IMAGENET:
        scores = [grid.imagenet(t, main.student, main.training) for t in (small, large)]
    else:
        scores = [grid.get(task, t, main.student, main.training, main.place) for t in (small, large)]
    alike = [grid.similarity(task, t, main.student, main.training) for t in (small, large)]
    if None in (*scores, *alike):
        return None
    change, cka_change = _minus(scores, level), _minus(alike, level)
    cells = {
        "small_score": cell(scores[0], level), "small_cka": cell(alike[0], level),
        "large_score": cell(scores[1], level), "large_cka": cell(alike[1], level),
        "score_change": change, "cka_change": cka_change,
    }  # fmt: skip
    return row([_top1(grid) if task == IMAGENET else task_of(task).title], cells, {"resolvable": resolvable(change)})


def _minus(sides: Sequence[Result | None], level: float) -> Cell:
    one, two = sides
    if one is None or two is None:
        return Cell(math.nan)
    return Cell(two.value - one.value, half_width(math.hypot(one.se, two.se), level))


def losses(grid: Grid, level: float = 0.95) -> Table:
    """Table 4: the main student under each loss, a block a loss. Empty where there is one loss alone."""
    main = grid.main()
    same = [t for t in grid.trainings if t._replace(loss=main.training.loss) == main.training]
    found = [
        (t.loss, [_summary(grid, [teacher, t.loss], teacher, t, level) for teacher in grid.teachers]) for t in same
    ]
    kept = blocks(found if len(same) > 1 else [])
    caption = _caption(
        f"{main.student} by loss{_training(main.training._replace(loss=''))}, {main.place.named}.", level
    )
    return Table("table4", "Losses", caption, ("Teacher", "Loss"), with_data(_summaries(grid), kept), kept)


def data_sets(grid: Grid, level: float = 0.95) -> Table:
    """Table 5: the main student under each data set, a block a teacher. Empty where there is one data set alone."""
    main = grid.main()
    same = [t for t in grid.trainings if t._replace(dataset=main.training.dataset) == main.training]
    found = []
    for teacher in grid.teachers:
        rows = [_summary(grid, [teacher, t.dataset], teacher, t, level) for t in same]
        found.append((teacher, [r for r in rows if r.cells]))
    kept = blocks([(t, rows) for t, rows in found if len(rows) > 1])
    caption = _caption(
        f"{main.student} by distillation data{_training(main.training._replace(dataset=''))}, {main.place.named}.",
        level,
    )
    return Table("table5", "Data sets", caption, ("Teacher", "Data"), with_data(_summaries(grid), kept), kept)


def _summaries(grid: Grid) -> tuple[Column, ...]:
    return (Column("multimodal", "Multimodal"), Column(IMAGENET, _top1(grid)))


def _top1(grid: Grid) -> str:
    return grid.top1[0].upper() + grid.top1[1:]


def _summary(grid: Grid, labels: list[str], teacher: str, training: Training, level: float) -> Row:
    main = grid.main()
    average = grid.average(main.place, teacher, main.student, training)
    top1 = grid.imagenet(teacher, main.student, training)
    return row(labels, {"multimodal": cell(average, level), IMAGENET: cell(top1, level)})
