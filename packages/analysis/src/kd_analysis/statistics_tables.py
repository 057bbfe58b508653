"""The statistics of the question as tables, so that they are written as every other table is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from kd_analysis.changes import Change, family_changes, pair_changes
from kd_analysis.grid import Grid
from kd_analysis.ranking import ByTask, Pairs, Relation, by_task, relations, teacher_pairs
from kd_analysis.relative import Relative, relatives
from kd_analysis.stats import Estimate
from kd_analysis.table import Cell, Column, Row, Table, blocks, row
from kd_analysis.tasks import AVERAGE, GROUPS, IMAGENET, task_of


@dataclass(frozen=True)
class Question:
    """What a table of results says on "do better teachers make better students?"."""

    relations: list[Relation]
    pairs: list[Pairs]
    by_task: list[ByTask]
    families: list[Change]
    teachers: list[Change]
    relatives: list[Relative]


def ask(grid: Grid, families: Mapping[str, Sequence[str]], seed: int = 0, level: float = 0.95) -> Question:
    """Everything at once; each part draws from its own stream, so none changes another."""

    def stream(part: int) -> np.random.Generator:
        return np.random.default_rng([seed, part])

    return Question(
        relations=relations(grid, seed),
        pairs=teacher_pairs(grid),
        by_task=by_task(grid),
        families=family_changes(grid, families, stream(1), level),
        teachers=pair_changes(grid, stream(2), level),
        relatives=relatives(grid, level),
    )


def tables(question: Question, level: float = 0.95) -> list[Table]:
    """Those with a row."""
    found = [
        _ranks(question.relations),
        _pairs(question.pairs, question.by_task),
        _changes("families", "A larger teacher of the same family", question.families, level),
        _changes("teachers", "Every pair of teachers", question.teachers, level),
        _relatives(question.relatives, level),
    ]
    return [t for t in found if not t.empty]


def families_of(
    grid: Grid, configured: Mapping[str, Sequence[str]], *, incomplete: bool = False
) -> dict[str, tuple[str, ...]]:
    """The configured families; without any, all teachers as one, the better average (or top-1) last.

    Of an `incomplete` study, families that lack a member are left out.

    Raises:
        ValueError: If a configured teacher is not among the results.
    """
    if configured:
        for name, members in configured.items():
            if (missing := sorted(set(members) - {*grid.teachers, *grid.encoders})) and not incomplete:
                known = ", ".join(dict.fromkeys((*grid.teachers, *grid.encoders)))
                raise ValueError(f"analysis.families.{name}: expected some of {known}; got {', '.join(missing)}.")
        there = {*grid.teachers, *grid.encoders}
        return {name: tuple(members) for name, members in configured.items() if there.issuperset(members)}
    place = grid.main().place

    def quality(teacher: str) -> float:
        own = grid.average(place, teacher) or grid.imagenet(teacher)
        return own.points if own else math.inf

    return {"teachers": tuple(sorted(grid.teachers, key=quality))}


# ---------------------------------------------------------------- ranks


def _ranks(found: Sequence[Relation]) -> Table:
    signed = partial(Column, digits=3, better="", signed=True)
    plain = partial(Column, digits=3, better="")
    columns = (
        plain("n", "n", digits=0), signed("spearman", "Spearman"), plain("spearman_p", "p (Spearman)"),
        signed("kendall", "Kendall"), plain("kendall_p", "p (Kendall)"), signed("pearson", "Pearson"),
        signed("slope", "Slope", digits=2), plain("concordant", "Concordant", digits=0),
        plain("discordant", "Discordant", digits=0), plain("tied", "Tied", digits=0),
        plain("least_p", "Least p", digits=4),
    )  # fmt: skip
    caption = (
        "Rank correlations over teachers. p is two-sided and exact (every order of up to 8 values; above, 20,000 "
        "random orders); no correlation of so few values can reach a smaller one than “Least p”. Kendall's is tau-b."
    )
    rows = blocks([("", [_rank(r) for r in found])])
    title = "Do better teachers make better students?"
    return Table("ranks", title, caption, ("Where", "x", "y"), columns, rows)


def _rank(r: Relation) -> Row:
    values = {
        "n": float(r.n), "spearman": r.spearman.value, "spearman_p": r.spearman.p, "kendall": r.kendall.value,
        "kendall_p": r.kendall.p, "pearson": r.pearson, "slope": r.slope, "concordant": float(r.pairs[0]),
        "discordant": float(r.pairs[1]), "tied": float(r.pairs[2]),
        "least_p": r.least_p if r.spearman.exact else math.nan,
    }  # fmt: skip
    return row([r.where, r.x, r.y], {k: Cell(v) for k, v in values.items() if not math.isnan(v)})


def _pairs(found: Sequence[Pairs], tasks: Sequence[ByTask]) -> Table:
    titles = {"better": "Better student", "worse": "Worse student", "tied": "Tied"}
    columns = tuple(Column(key, title, digits=0, better="") for key, title in titles.items())
    some = [_counts([p.where, task_of(p.measure).title], p.better, p.worse, p.ties) for p in found]
    signs = [
        _counts([t.where, f"sign test p {t.sign_p:.3f}; median Spearman {t.median:+.3f}"], t.up, t.down, t.zero)
        for t in tasks
    ]
    caption = (
        "Over all students and all pairs of their teachers: how often the better teacher had the better student. Task "
        "by task: how many tasks rank students as they rank the teachers, against it, and neither."
    )
    rows = blocks([("pairs of teachers", some), ("task by task", signs)])
    return Table("pairs", "All pairs of teachers", caption, ("Where", "Measure"), columns, rows)


def _counts(labels: list[str], better: int, worse: int, tied: int) -> Row:
    return row(labels, {"better": Cell(better), "worse": Cell(worse), "tied": Cell(tied)})


# ---------------------------------------------------------------- changes


CHANGE_COLUMNS = (
    Column("change", "Change", better="", signed=True), Column("p", "p", digits=3, better=""),
    Column("p_holm", "p (Holm)", digits=3, better=""), Column("detectable", "Detectable", better=""),
    Column("up", "Up", "Tasks", 0, ""), Column("down", "Down", "Tasks", 0, ""), Column("tie", "Tied", "Tasks", 0, ""),
    Column("sign_p", "Sign p", "Tasks", 3, ""), Column("wilcoxon_p", "Wilcoxon p", "Tasks", 3, ""),
    Column("task_low", "Low", "Over tasks", 2, "", signed=True),
    Column("task_high", "High", "Over tasks", 2, "", signed=True),
)  # fmt: skip


def _changes(name: str, title: str, found: Sequence[Change], level: float) -> Table:
    places = list(dict.fromkeys((c.where, c.measure) for c in found))
    rows = [
        (f"{where}: {task_of(measure).title}", [_change(c) for c in found if (c.where, c.measure) == (where, measure)])
        for where, measure in places
    ]
    caption = (
        f"What another teacher changes in a student, in points, with the {100 * level:.0f} % interval over items "
        "(unpaired: an upper bound). Holm: within averages, and within zero-shot. Detectable: the true change "
        "found four times out of five. Over tasks: the interval when tasks are drawn anew."
    )
    texts = (("verdict", "Above zero"),)
    return Table(name, title, caption, ("Student", "From", "To"), CHANGE_COLUMNS, blocks(rows), texts)


def _change(c: Change) -> Row:
    values = {"p": c.estimate.p, "p_holm": c.p_holm, "detectable": c.detectable}
    if c.tasks:
        t = c.tasks
        values |= {
            "up": t.up, "down": t.down, "tie": t.tie, "sign_p": t.sign_p, "wilcoxon_p": t.wilcoxon_p,
            "task_low": t.estimate.low, "task_high": t.estimate.high,
        }  # fmt: skip
    cells = {"change": _cell(c.estimate)} | {k: Cell(float(v)) for k, v in values.items() if not math.isnan(v)}
    return row([c.student, c.of, c.to], dict(cells), {"verdict": c.verdict})


def _cell(e: Estimate) -> Cell:
    return Cell(e.value, e.high - e.value)


def _relatives(found: Sequence[Relative], level: float) -> Table:
    """Averages, groups and zero-shot; single tasks stand in the CSV of the figures' data alone."""
    columns = (
        Column("teacher", "Teacher", better=""), Column("student", "Student", better=""),
        Column("gap", "Gap", better="low", signed=True), Column("ratio", "Student / teacher", digits=3),
    )  # fmt: skip
    some = [r for r in found if r.measure in (AVERAGE, IMAGENET, *GROUPS)]
    places = list(dict.fromkeys((r.where, r.measure, r.student, r.training) for r in some))
    rows = []
    for key in places:
        where, measure, student, training = key
        title = ", ".join(filter(None, (where, task_of(measure).title, student, training.loss, training.dataset)))
        mine = [r for r in some if (r.where, r.measure, r.student, r.training) == key]
        rows.append((title, [_relative(r) for r in mine]))
    caption = (
        f"How far a student stays behind its teacher, in points, and the share that it keeps (delta method). "
        f"±: half of the {100 * level:.0f} % interval, unpaired."
    )
    return Table("relative", "Gap and relative performance", caption, ("Teacher",), columns, blocks(rows))


def _relative(r: Relative) -> Row:
    cells = {
        "teacher": Cell(r.teacher_points), "student": Cell(r.student_points), "gap": _cell(r.gap),
        "ratio": None if math.isnan(r.ratio.value) else _cell(r.ratio),
    }  # fmt: skip
    return row([r.teacher], cells)
