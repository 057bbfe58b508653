"""The figures of the report. One colour a teacher, dark for the teacher and light for its students."""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from kd_analysis.gap import Gap
from kd_analysis.rows import BLIND, Row
from kd_analysis.similarity import ALONE as WITHOUT
from kd_analysis.similarity import OTHER, OWN, SEEDS, TEACHERS, UNTRAINED
from kd_analysis.study import ALONE, STUDENT, TEACHER, Claim
from kd_analysis.tasks import GROUPS, in_order, task_of
from kd_analysis.words import number, signed

MARKS = "osD^v"
WIDTH = 8.6  # inches
INK, MUTED, LINE = "#1d2329", "#6b7580", "#d5dade"
HUES = (("#1f5673", "#7fb2cf"), ("#a1441f", "#e3a283"), ("#3f6b3a", "#9dc596"), ("#674a86", "#b8a2d0"))
GREY, PALE = "#8a9199", "#ccd1d6"
LOOKS = {
    OWN: (INK, "o"),
    OTHER: ("#c07a2c", "D"),
    WITHOUT: (GREY, "s"),
    UNTRAINED: (GREY, "|"),
    TEACHERS: ("#3f6b3a", "^"),
    SEEDS: ("#674a86", "v"),
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.axisbelow": True,
    "grid.color": "#eceff1",
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def colour(role: str, teacher: str, teachers: Sequence[str]) -> str:
    """The colour of a model: its teacher's hue, dark for the teacher itself; grey without a teacher."""
    if role in (TEACHER, STUDENT) and teacher in teachers:
        return HUES[teachers.index(teacher) % len(HUES)][role == STUDENT]
    return PALE if role == BLIND else GREY


def forest(claims: Sequence[Claim], unit: str = "points") -> Figure:
    """Differences with their intervals, one a line; filled where the interval leaves out zero."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.75 + 0.45 * len(claims)), layout="constrained")
        axes = figure.subplots()
        for y, claim in enumerate(claims):
            e = claim.estimate
            ink = INK if claim.verdict != "not resolvable" else GREY
            axes.plot([e.low, e.high], [y, y], color=ink, linewidth=2, solid_capstyle="round")
            axes.plot(e.value, y, "o", markersize=7, color=ink, markerfacecolor=ink if ink == INK else "white")
            axes.annotate(signed(e.value), (e.value, y), (0, 7), textcoords="offset points", ha="center", color=ink)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks(range(len(claims)), [f"{c.measure}: {c.better.split(', from ')[0]}" for c in claims])
        axes.set_ylim(len(claims) - 0.5, -0.7)
        what = f"student of the better teacher minus student of the other, {unit}"
        figure.supxlabel(what, fontsize=mpl.rcParams["axes.labelsize"])  # wider than the axes where labels are long
        axes.grid(axis="x")
        _bare(axes)
        return figure


def gap_figure(found: Sequence[Gap], teachers: Sequence[str]) -> Figure:
    """Teacher and student joined by a line, a panel a measure; a grey tick is the student without a teacher."""
    measures = list(dict.fromkeys(g.measure for g in found))
    tallest = max(sum(g.measure == m for g in found) for m in measures)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, len(measures) * (0.75 + 0.42 * tallest)), layout="constrained")
        panels = figure.subplots(len(measures), 1, squeeze=False)[:, 0]
        for axes, measure in zip(panels, measures, strict=True):
            for y, gap in enumerate([g for g in found if g.measure == measure]):
                _dumbbell(axes, y, gap, teachers)
            some = [g for g in found if g.measure == measure]
            axes.set_yticks(range(len(some)), [g.student for g in some])
            axes.set_ylim(len(some) - 0.4, -0.7)
            axes.set_title(f"{measure}, points", loc="left", fontsize=10, fontweight="bold")
            axes.grid(axis="x")
            _bare(axes)
        return figure


def _dumbbell(axes: Any, y: int, gap: Gap, teachers: Sequence[str]) -> None:
    dark, light = (colour(role, gap.teacher, teachers) for role in (TEACHER, STUDENT))
    student, teacher = gap.student_score, gap.teacher_score
    axes.plot([student.value, teacher.value], [y, y], color=PALE, linewidth=4, solid_capstyle="butt", zorder=1)
    for score, ink in ((student, light), (teacher, dark)):
        axes.plot([score.low, score.high], [y, y], color=ink, linewidth=1.5, zorder=2)
        axes.plot(score.value, y, "o", color=ink, markersize=9, zorder=3)
    if gap.alone is not None:
        axes.plot(gap.alone, y, "|", color=GREY, markersize=14, markeredgewidth=2.2)
    middle = (student.value + teacher.value) / 2
    axes.annotate(
        number(gap.gap.estimate.value), (middle, y), (0, 5), textcoords="offset points", ha="center", color=MUTED
    )


def task_grid(found: Sequence[Row], teachers: Sequence[str], chances: dict[str, float | None]) -> Figure:
    """Small bars of every model on every task, a line of panels a group; the dotted line is chance."""
    tasks = in_order({t for row in found for t in row.tasks})
    wide = 4
    lines = _lines_of_panels(tasks, wide)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.2 + 0.2 * math.ceil(len(found) / 4) + 1.5 * len(lines)), layout="constrained")
        panels = figure.subplots(len(lines), wide, squeeze=False, sharey=True)
        for line, some in enumerate(lines):
            for column in range(wide):
                axes = panels[line][column]
                if column < len(some):
                    _bars(axes, some[column], found, teachers, chances[some[column]])
                else:
                    axes.set_visible(False)
            panels[line][0].set_ylabel(task_of(some[0]).group, fontsize=9, color=MUTED)
        handles = [Patch(color=colour(row.role, row.teacher, teachers), label=row.label) for row in found]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(4, len(handles)))
        return figure


def _lines_of_panels(tasks: Sequence[str], wide: int) -> list[list[str]]:
    lines = []
    for group in dict.fromkeys([*GROUPS, *(task_of(t).group for t in tasks)]):
        some = [t for t in tasks if task_of(t).group == group]
        lines += [some[i : i + wide] for i in range(0, len(some), wide)]
    return lines


def _bars(axes: Any, task: str, found: Sequence[Row], teachers: Sequence[str], chance: float | None) -> None:
    for x, row in enumerate(found):
        if cell := row.tasks.get(task):
            axes.bar(x, cell.value, width=0.8, color=colour(row.role, row.teacher, teachers))
            axes.plot([x, x], [cell.value - cell.half, cell.value + cell.half], color=INK, linewidth=0.9)
    if chance is not None:
        axes.axhline(chance, color=INK, linewidth=1, linestyle=(0, (1.5, 1.5)))
    axes.set_title(task_of(task).title, fontsize=9.5, loc="left", pad=4)
    axes.set_xticks([])
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 50, 100])
    axes.grid(axis="y")
    _bare(axes)


def cka_by_task(table: dict[str, dict[str, list[tuple[float, float]]]], relations: Sequence[str]) -> Figure:
    """For every task the mean CKA of each relation, with the range over pairs.

    Args:
        table: task -> relation -> (value, half width) of each pair.
        relations: Which, in the order of the legend.
    """
    tasks = list(table)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.27 * len(tasks)), layout="constrained")
        axes = figure.subplots()
        for relation in relations:
            ink, mark = LOOKS[relation]
            for y, task in enumerate(tasks):
                for value, half in table[task].get(relation, []):
                    axes.plot([value - half, value + half], [y, y], color=ink, linewidth=0.8, alpha=0.6)
                    axes.plot(value, y, mark, color=ink, markersize=9 if mark == "|" else 5, markeredgewidth=1.4)
            axes.plot([], [], mark, color=ink, label=relation, markersize=9 if mark == "|" else 5, markeredgewidth=1.4)
        axes.set_yticks(range(len(tasks)), [task_of(t).title for t in tasks])
        axes.set_ylim(len(tasks) - 0.4, -0.6)
        axes.set_xlabel("debiased linear CKA")
        axes.grid(axis="both")
        axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=len(relations), handletextpad=0.2)
        _bare(axes)
        return figure


def cka_against_score(points: Sequence[dict[str, Any]], teachers: Sequence[str], floor: float) -> Figure:
    """Students by similarity to their teacher and by score, a panel a measure; the dashed line is the untrained floor.

    Args:
        points: `measure`, `label`, `arch`, `teacher`, `cka`, `cka_half`, `score`, `score_half` of each student.
        teachers: In the order of their colours.
        floor: Mean CKA of untrained students, NaN if there is none.
    """
    measures = list(dict.fromkeys(p["measure"] for p in points))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        archs = sorted({p["arch"] for p in points})
        for axes, measure in zip(panels, measures, strict=True):
            for p in (p for p in points if p["measure"] == measure):
                axes.errorbar(
                    p["cka"], p["score"], xerr=p["cka_half"], yerr=p["score_half"], linewidth=1.2, markersize=8,
                    fmt=MARKS[archs.index(p["arch"]) % len(MARKS)], label=p["label"],
                    color=colour(STUDENT if p["teacher"] in teachers else ALONE, p["teacher"], teachers),
                )  # fmt: skip
            if not math.isnan(floor):
                axes.axvline(floor, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
                axes.annotate(
                    "untrained", (floor, 1), (3, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
                    va="top", fontsize=8.5, color=MUTED,
                )  # fmt: skip
            axes.set_title(f"{measure}, points", loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel("mean debiased CKA over tasks")
            axes.margins(0.1)
            axes.grid()
            _bare(axes)
        handles, labels = panels[0].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=3)
        return figure


def _bare(axes: Any) -> None:
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def svg(figure: Figure, name: str) -> str:
    """The figure's SVG element for a page, equal bytes for equal data."""
    out = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return inline(out.getvalue(), name)


def png(figure: Figure, path: Path) -> None:
    """The same as an image, for where no SVG is shown."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def inline(text: str, name: str) -> str:
    """The SVG element of an SVG file: without its size and metadata, with ids that clash with no other figure's."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'xlink:href="#{name}-')
    return re.sub(r'<svg ([^>]*?)width="[^"]*" ([^>]*?)height="[^"]*"|<svg ', _responsive, text, count=1)


def _responsive(found: re.Match[str]) -> str:
    """Without width and height the viewBox decides, so the figure follows the page."""
    return re.sub(r'\b(width|height)="[^"]*" ?', "", found.group(0))
