"""Figures 2 and 3 of the study as functions of the results by cell: SVG, PNG and the data that they show.

One column of a page, 8 points, a colour-blind-safe palette with a mark and a line style each, y from the data.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kd_analysis.grid import Grid, Place, Training
from kd_analysis.relative import ratio
from kd_analysis.results import Result
from kd_analysis.table import half_width
from kd_analysis.tasks import AVERAGE, IMAGENET, task_of

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")  # Okabe and Ito
MARKS, LINES = "osD^vPX", ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
INK, MUTED, FAINT = "#1d2329", "#6b7580", "#dfe3e6"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7, "legend.frameon": False,
    "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7, "xtick.major.width": 0.7, "ytick.major.width": 0.7, "text.color": INK, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": FAINT, "grid.linewidth": 0.6, "lines.linewidth": 1.3, "lines.markersize": 4.5,
}  # fmt: skip
SIZE = (3.3, 2.3)  # inches
NOT_ZERO = "The vertical axis does not begin at 0."

Point = dict[str, Any]


@dataclass(frozen=True)
class Plot:
    """One figure: its data, a line a point, and how it is drawn from them."""

    name: str
    title: str
    caption: str
    data: tuple[Point, ...]
    draw: Callable[[Figure, Sequence[Point]], None]
    size: tuple[float, float] = SIZE


def all_plots(grid: Grid, level: float = 0.95) -> list[Plot]:
    """The figures that the results fill, in order."""
    found = [
        gaps(grid, level),
        curve(grid, IMAGENET, "figure3a", level),
        curve(grid, AVERAGE, "figure3b", level),
        similarity_curve(grid, IMAGENET, "figure3c", level),
        similarity_curve(grid, "mmvp", "figure3d", level),
    ]
    return [p for p in found if p.data]


# ---------------------------------------------------------------- figure 2


def gaps(grid: Grid, level: float = 0.95) -> Plot:
    """Figure 2: each teacher's average and its main student's, a panel a language model of the main framework."""
    main, data = grid.main(), []
    for place in grid.places:
        for teacher in grid.teachers:
            own = grid.average(place, teacher)
            student = grid.average(place, teacher, main.student, main.training)
            if own and student:
                gap = half_width(math.hypot(own.points_se, student.points_se), level)
                data.append(
                    {
                        "place": place.named, "teacher": teacher,
                        "teacher_average": own.points, "teacher_half": half_width(own.points_se, level),
                        "student_average": student.points, "student_half": half_width(student.points_se, level),
                        "gap": own.points - student.points, "gap_half": gap,
                    }
                )  # fmt: skip
    panels = len({p["place"] for p in data})
    title = f"Average of each teacher and of its {main.student}"
    caption = f"{title}; the number is the gap. Bars: {100 * level:.0f} % intervals. {NOT_ZERO}"
    return Plot("figure2", "The gap to the teacher", caption, tuple(data), _draw_gaps, (SIZE[0] * max(1, panels), 2.5))


def _draw_gaps(figure: Figure, data: Sequence[Point]) -> None:
    places = list(dict.fromkeys(p["place"] for p in data))
    for axes, place in zip(figure.subplots(1, len(places), squeeze=False)[0], places, strict=True):
        some = sorted((p for p in data if p["place"] == place), key=lambda p: -p["teacher_average"])
        for x, p in enumerate(some):
            axes.plot([x, x], [p["student_average"], p["teacher_average"]], color=FAINT, linewidth=5, zorder=1)
            middle = (p["student_average"] + p["teacher_average"]) / 2
            axes.annotate(f"{p['gap']:.2f}", (x, middle), (13, 0), textcoords="offset points", va="center", color=MUTED)
        for side, colour, mark in (("teacher", PALETTE[0], "s"), ("student", PALETTE[1], "o")):
            values, halves = ([p[f"{side}_{what}"] for p in some] for what in ("average", "half"))
            beside = 0.07 if side == "student" else -0.07  # so that the bars do not hide each other
            places_x = [x + beside for x in range(len(some))]
            axes.errorbar(places_x, values, yerr=_known(halves), fmt=mark, color=colour, label=side, capsize=2)
        axes.set_xticks(range(len(some)), [p["teacher"] for p in some], rotation=30, ha="right")
        axes.set_xlim(-0.5, len(some) - 0.2)
        axes.grid(axis="x", visible=False)
        axes.set_title(place, loc="left")
    figure.axes[0].set_ylabel("Average, points")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)


# ---------------------------------------------------------------- figure 3


def _epochs(grid: Grid) -> list[tuple[float, Training]]:
    """The main student's trainings along the longest schedule that was looked into, by epoch; empty without one."""
    main = grid.main()
    inside = [t for t in grid.trainings if t.epoch and t.epoch != t.epochs and t[:2] == main.training[:2]]
    if not inside:
        return []
    longest = max(t.epochs for t in inside)
    return sorted(
        (t.epoch, t) for t in grid.trainings if t[:2] == main.training[:2] and t.epochs == longest and t.epoch
    )


def curve(grid: Grid, task: str, name: str, level: float = 0.95) -> Plot:
    """Figures 3a and 3b: a score of the main student by epoch of one schedule, a line a teacher."""
    main, data = grid.main(), []
    place = Place("", "") if task == IMAGENET else main.place
    for teacher in grid.teachers:
        for epoch, training in _epochs(grid):
            if r := grid.get(task, teacher, main.student, training, place):
                data.append(_point(teacher, epoch, r.value, half_width(r.se, level)))
    title = f"{grid.top1}, top-1 %" if task == IMAGENET else f"{task_of(task).title}, points"
    caption = f"{main.student}: {title} by epoch of one schedule. Bars: {100 * level:.0f} % intervals. {NOT_ZERO}"
    return Plot(
        name,
        f"{grid.top1 if task == IMAGENET else task_of(task).title} by epoch",
        caption,
        tuple(data),
        _drawer({"value": title}),
    )


def similarity_curve(grid: Grid, task: str, name: str, level: float = 0.95) -> Plot:
    """Figures 3c and 3d: CKA with the teacher, and student / teacher, by epoch: two panels, not two axes in one."""
    main, data = grid.main(), []
    place = Place("", "") if task == IMAGENET else main.place
    for teacher in grid.teachers:
        own = grid.get(task, teacher, place=place)
        for epoch, training in _epochs(grid):
            alike = grid.similarity(task, teacher, main.student, training)
            student = grid.get(task, teacher, main.student, training, place)
            if alike and student and own:
                quotient = ratio(student.value, student.se, own.value, own.se, level)
                point = _point(teacher, epoch, alike.value, half_width(alike.se, level), "cka")
                data.append(point | _point(teacher, epoch, quotient.value, quotient.high - quotient.value, "relative"))
    title = grid.top1 if task == IMAGENET else task_of(task).title
    one = _one_item([grid.get(task, t, place=place) for t in grid.teachers])
    band = f" Band: one item right or wrong moves the ratio by up to {one:.3f}." if one else ""
    what = "CKA with its teacher, and its score over the teacher's (dashed: 1)"
    caption = f"{main.student} on {title} by epoch: {what}.{band} {NOT_ZERO}"
    drawer = _drawer({"cka": "CKA", "relative": "student / teacher"}, {"relative": (1.0, one)})
    return Plot(name, f"CKA and relative {title}", caption, tuple(data), drawer, (SIZE[0], 3.4))


def _one_item(own: Sequence[Result | None]) -> float:
    """How much one item moves student / teacher at most, where items are few; 0 where they are many or unknown."""
    known = [r for r in own if r and 0 < r.n <= 500 and r.value > 0]
    return max((100 / r.n / r.points for r in known), default=0.0)


def _point(teacher: str, epoch: float, value: float, half: float, what: str = "value") -> Point:
    return {"teacher": teacher, "epoch": epoch, what: value, f"{what}_half": half}


def _drawer(
    panels: Mapping[str, str], levels: Mapping[str, tuple[float, float]] | None = None
) -> Callable[[Figure, Sequence[Point]], None]:
    """Draws a line a teacher in each panel; `panels` gives y labels by column, `levels` a line and a band about it."""

    def draw(figure: Figure, data: Sequence[Point]) -> None:
        lines = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (what, label) in zip(lines, panels.items(), strict=True):
            epochs = [p["epoch"] for p in data]
            beside = 0.006 * (max(epochs) - min(epochs))  # so that bars of equal epochs do not hide each other
            for i, teacher in enumerate(dict.fromkeys(p["teacher"] for p in data)):
                some = [p for p in data if p["teacher"] == teacher]
                axes.errorbar(
                    [p["epoch"] + i * beside for p in some], [p[what] for p in some],
                    yerr=_known([p[f"{what}_half"] for p in some]), marker=MARKS[i % len(MARKS)],
                    color=PALETTE[i % len(PALETTE)], linestyle=LINES[i % len(LINES)], label=teacher, capsize=2,
                )  # fmt: skip
            if levels and what in levels:
                at, width = levels[what]
                axes.axhline(at, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
                axes.axhspan(at - width, at + width, color=FAINT, linewidth=0, zorder=0)
            axes.set_ylabel(label)
        lines[-1].set_xlabel("epoch")
        lines[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, teachers = lines[0].get_legend_handles_labels()
        figure.legend(handles, teachers, loc="outside upper center", ncols=min(4, len(teachers)))

    return draw


def _known(halves: Sequence[float]) -> list[float] | None:
    """Half widths for error bars; none where one of them is unknown."""
    return None if any(math.isnan(h) for h in halves) else list(halves)


# ---------------------------------------------------------------- writing


def figure_of(plot: Plot) -> Figure:
    """The drawn figure."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=plot.size, layout="constrained")
        FigureCanvasAgg(figure)
        plot.draw(figure, plot.data)
    return figure


def svg_of(plot: Plot) -> str:
    """SVG text, equal for equal data."""
    out = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": plot.name}):
        figure_of(plot).savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def write(plot: Plot, folder: Path) -> list[Path]:
    """`<name>.svg`, `.png` and `.csv`; equal data give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{plot.name}.{ending}" for ending in ("svg", "png", "csv")]
    paths[0].write_text(svg_of(plot), encoding="utf-8")
    with mpl.rc_context(STYLE):
        figure_of(plot).savefig(paths[1], format="png", dpi=200, metadata={"Software": None})
    with paths[2].open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(plot.data[0]), lineterminator="\n")
        writer.writeheader()
        for point in plot.data:
            writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in point.items()})
    return paths
