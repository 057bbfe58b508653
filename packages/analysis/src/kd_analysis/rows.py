"""The rows of the score tables: one a cell of the study, seeds taken together."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.stats import norm

from kd_analysis.names import labels
from kd_analysis.scores import ZEROSHOT, Score
from kd_analysis.stats import items_and_seeds
from kd_analysis.study import ALONE, STUDENT, TEACHER, Entry, Study, cells
from kd_analysis.tasks import GROUPS, in_order, task_of

ROLES = {TEACHER: 0, STUDENT: 1, ALONE: 2}
BLIND = "blind"


@dataclass(frozen=True)
class Cell:
    """A score in points (0 to 100) with the half width of its interval.

    Attributes:
        value: Mean over seeds.
        half: Half width over items, and over seeds where there are several.
        n: Items.
        seeds: How many trainings.
        sd: Standard deviation between seeds, NaN with one.
    """

    value: float
    half: float
    n: int
    seeds: int = 1
    sd: float = math.nan


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: For the reader.
        role: "teacher", "student", "no teacher", "blind" or "other".
        teacher: The teacher's family, or the row's own if it is a teacher; decides the colour.
        zeroshot: Top-1; None where it was not scored.
        average: Of all tasks; None without a VLM.
    """

    label: str
    role: str
    teacher: str
    zeroshot: Cell | None = None
    average: Cell | None = None
    groups: dict[str, Cell] = field(default_factory=dict)
    tasks: dict[str, Cell] = field(default_factory=dict)


def rows(study: Study, level: float) -> list[Row]:
    """Teachers (the better first), their students in the same order, students without a teacher, then blind VLMs."""
    zero, vlms, blind = (cells(e) for e in (study.zeroshot, study.vlms, study.blind))
    told = labels(e.encoder for e in (*study.zeroshot, *study.vlms, *study.blind))
    classified = {_encoder(entries[0]): entries for entries in zero.values()}
    built_on: dict[tuple[str, ...], list[list[Entry]]] = {}
    for entries in vlms.values():
        built_on.setdefault(_encoder(entries[0]), []).append(entries)
    found = []
    for encoder in classified | built_on:
        own, partners = classified.get(encoder, []), built_on.get(encoder, [])
        found += [_row(told, own, other, level, several=len(partners) > 1) for other in partners or [[]]]
    found += [_row(told, [], other, level, several=len(blind) > 1) for other in blind.values()]
    place = {teacher: i for i, teacher in enumerate(study.teachers)}
    return sorted(found, key=lambda r: (ROLES.get(r.role, 3 + (r.role == BLIND)), place.get(r.teacher, 99), r.label))


def _encoder(entry: Entry) -> tuple[str, ...]:
    return entry.cell[:4]


def _row(told: Mapping[str, str], zero: Sequence[Entry], vlms: Sequence[Entry], level: float, *, several: bool) -> Row:
    first = (*zero, *vlms)[0]
    is_blind = first.scored.blind
    label = told[first.encoder.full] if first.role in ROLES else first.scored.ref.name
    if several and vlms:
        label += f" ({vlms[0].variant})"
    tasks = in_order(set(vlms[0].suite)) if vlms else []
    by_group = {g: [t for t in tasks if task_of(t).group == g] for g in GROUPS}
    return Row(
        label=f"{label}, image removed" if is_blind else label,
        role=BLIND if is_blind else first.role,
        teacher=first.encoder.family,
        zeroshot=_cell(zero, [ZEROSHOT], level) if zero else None,
        average=_cell(vlms, tasks, level) if vlms else None,
        groups={g: _cell(vlms, some, level) for g, some in by_group.items() if some},
        tasks={t: _cell(vlms, [t], level) for t in tasks},
    )


def _cell(entries: Sequence[Entry], tasks: Sequence[str], level: float) -> Cell:
    """The mean over tasks of the recorded scores, for one cell of the study."""
    values = [_mean(e, tasks, lambda s: s.percent) for e in entries]
    n = sum(entries[0].scored.scores[t].n for t in tasks)
    value = sum(values) / len(values)
    if len(entries) == 1:
        variance = sum(entries[0].scored.scores[t].percent_stderr ** 2 for t in tasks)
        return Cell(value, float(norm.ppf(0.5 + level / 2)) * math.sqrt(variance) / len(tasks), n)
    both = items_and_seeds([{t: e.suite[t] for t in tasks} for e in entries], level)
    sd = math.sqrt(sum((v - value) ** 2 for v in values) / (len(values) - 1))
    return Cell(value, 100 * (both.high - both.low) / 2, n, len(entries), sd)


def _mean(entry: Entry, tasks: Sequence[str], of: Callable[[Score], float]) -> float:
    return sum(of(entry.scored.scores[t]) for t in tasks) / len(tasks)


def chance(study: Study, tasks: Sequence[str]) -> float | None:
    """The mean chance level of the tasks in points; None if one of them has none."""
    source = study.zeroshot if list(tasks) == [ZEROSHOT] else study.vlms
    levels = [source[0].scored.scores[t].percent_chance for t in tasks] if source else [None]
    known = [level for level in levels if level is not None]
    return sum(known) / len(known) if len(known) == len(levels) else None
