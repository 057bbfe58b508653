"""What `analysis cka` wrote beside CKA, as tables: paired differences of two teachers, and the other measures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from kd_analysis.results import NO_TEACHER
from kd_analysis.scores import InputError
from kd_analysis.similarity import OTHER, OWN, SEEDS, TEACHERS, UNTRAINED, Measured, TeacherDifference
from kd_analysis.table import Cell, Column, Row, Table, blocks, half_width, row, with_data

Kind = TypeVar("Kind", Measured, TeacherDifference)


def read_beside(cka: Path) -> tuple[list[Measured], list[TeacherDifference]]:
    """`measures.json` and `differences.json` of a folder of similarities; empty where they are not there.

    Raises:
        InputError: If one of them is not of the agreed form.
    """
    return _read(cka / "measures.json", Measured), _read(cka / "differences.json", TeacherDifference)


def _read(path: Path, kind: type[Kind]) -> list[Kind]:
    if not path.is_file():
        return []
    try:
        return TypeAdapter(list[kind]).validate_json(path.read_bytes())  # type: ignore[valid-type]
    except ValidationError as error:
        raise InputError(f"{path}: expected a JSON list as `analysis cka` writes it: {error}") from None


def differences_table(found: Sequence[TeacherDifference], level: float) -> Table:
    """CKA of each student with its own teacher minus with another, the mean over tasks, paired over images."""
    pairs = dict.fromkeys((d.student, d.teacher, d.other) for d in found)
    rows = [_difference([d for d in found if (d.student, d.teacher, d.other) == pair], level) for pair in pairs]
    columns = (
        Column("difference", "Difference", digits=3, better="", signed=True),
        Column("above", "Tasks above 0", digits=0, better=""), Column("below", "below", digits=0, better=""),
        Column("open", "not resolvable", digits=0, better=""),
    )  # fmt: skip
    caption = (
        "Debiased CKA of the student with the first teacher minus with the other, mean over tasks; jackknifed over the "
        f"same images, so sharper than the two values. ±: half of the {100 * level:.0f} % interval."
    )
    stubs = ("Student", "Teacher", "minus")
    return Table(
        "cka_differences", "Which teacher a student is more like", caption, stubs, columns, blocks([("", rows)])
    )


def _difference(found: Sequence[TeacherDifference], level: float) -> Row:
    mean = sum(d.value for d in found) / len(found)
    se = math.sqrt(sum(d.se**2 for d in found)) / len(found)
    above, below = sum(d.low > 0 for d in found), sum(d.high < 0 for d in found)
    counts = {"above": above, "below": below, "open": len(found) - above - below}
    cells = {"difference": Cell(mean, half_width(se, level))} | {k: Cell(float(v)) for k, v in counts.items()}
    return row([found[0].student, found[0].teacher, found[0].other], dict(cells))


RELATION_TITLES = {
    OWN: "Own teacher", OTHER: "Other teacher", UNTRAINED: "Untrained", SEEDS: "Two seeds", TEACHERS: "Teachers",
}  # fmt: skip


def measures_table(found: Sequence[Measured]) -> Table:
    """Every other measure, the mean over tasks, a block a student: with its own teacher and the controls."""
    students = dict.fromkeys(m.student for m in found if m.relation == OWN and f"--{NO_TEACHER}--" not in m.student)
    rows = [(student, _measures([m for m in found if m.student == student])) for student in students]
    columns = [Column(relation, title, digits=3, better="") for relation, title in RELATION_TITLES.items()]
    kept = blocks(rows)
    caption = "Means over tasks. No single measure is enough: see which say the same as CKA, and which do not."
    return Table("measures", "Other measures", caption, ("Measure",), with_data(columns, kept), kept)


def _measures(found: Sequence[Measured]) -> list[Row]:
    rows = []
    for measure in dict.fromkeys(m.measure for m in found):
        cells: dict[str, Cell | None] = {}
        for relation in RELATION_TITLES:
            values = [m.value for m in found if (m.measure, m.relation) == (measure, relation) and m.value is not None]
            cells[relation] = Cell(sum(values) / len(values)) if values else None
        rows.append(row([measure], cells))
    return rows
