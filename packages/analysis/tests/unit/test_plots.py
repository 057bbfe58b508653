import csv
import math
import re

import numpy as np
import pytest
from kd_analysis.grid import Grid
from kd_analysis.paper import published
from kd_analysis.plots import all_plots, figure_of, svg_of, write
from kd_analysis.results import Result

EPOCHS = (32, 64, 96)


@pytest.fixture(scope="module")
def curves():
    """Two teachers' students at three epochs of one schedule, and the teachers themselves."""
    rng, rows = np.random.default_rng(0), []
    for teacher in ("a", "b"):
        for task in ("imagenet", "mmvp", "average"):
            place = {} if task == "imagenet" else {"framework": "f", "llm": "l"}
            rows.append(Result(teacher=teacher, task=task, value=40, se=2, n=150, **place))
            for epoch in EPOCHS:
                cell = {"teacher": teacher, "student": "s", "loss": "kd", "epochs": 96, "epoch": epoch, "task": task}
                rows.append(Result(value=20 + epoch / 8 + rng.normal(), se=1, n=150, **cell, **place))
                if task != "average":
                    rows.append(Result(value=0.5 + epoch / 500, se=0.01, metric="cka", **cell))
    return Grid(rows)


def test_figure_2_shows_the_gaps_of_the_paper():
    (plot,) = all_plots(Grid(published()))
    assert plot.name == "figure2"
    gaps = {(p["place"], p["teacher"]): round(p["gap"], 2) for p in plot.data}
    assert gaps["TinyLLaVA, Qwen2-0.5B", "CLIP-ViT-L"] == 6.65
    assert len(gaps) == 10
    svg = svg_of(plot)
    assert all(f">{gap:.2f}<" in svg for gap in gaps.values())


def test_curves_have_a_point_an_epoch_and_teacher(curves):
    plots = {p.name: p for p in all_plots(curves)}
    assert list(plots) == ["figure2", "figure3a", "figure3b", "figure3c", "figure3d"]
    for name in ("figure3a", "figure3b", "figure3c", "figure3d"):
        assert [(p["teacher"], p["epoch"]) for p in plots[name].data] == [(t, e) for t in "ab" for e in EPOCHS]
    point = plots["figure3d"].data[0]
    student = curves.get("mmvp", "a", "s", curves.trainings[0], curves.places[0])
    assert point["relative"] == pytest.approx(student.value / 40)
    assert point["cka"] == pytest.approx(0.564)


def test_similarity_and_relative_score_are_panels_and_not_two_axes_in_one(curves):
    figure = figure_of(next(p for p in all_plots(curves) if p.name == "figure3d"))
    upper, lower = figure.axes
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("CKA", "student / teacher")
    assert any(list(line.get_ydata()) == [1.0, 1.0] for line in lower.lines), "the teacher's line"


def test_one_item_of_a_small_task_is_told(curves):
    plots = {p.name: p for p in all_plots(curves)}
    assert f"{100 / 150 / 40:.3f}" in plots["figure3d"].caption


def test_a_schedule_without_epochs_inside_has_no_curve():
    assert [p.name for p in all_plots(Grid(published()))] == ["figure2"]


def test_equal_data_give_equal_bytes_without_a_date(curves, tmp_path):
    for plot in all_plots(curves):
        one, two = (write(plot, tmp_path / side) for side in ("one", "two"))
        assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
        assert not re.search(rb"dc:date|20\d\d-\d\d-\d\d", one[0].read_bytes())


def test_the_data_of_a_figure_are_beside_it(curves, tmp_path):
    plot = next(p for p in all_plots(curves) if p.name == "figure3a")
    _, _, data = write(plot, tmp_path)
    with data.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(r["value"]) for r in rows] == [p["value"] for p in plot.data]


def test_unknown_errors_draw_no_bars_and_are_empty_in_the_data(tmp_path):
    rows = [Result(teacher="a", framework="f", llm="l", task="average", value=40)]
    rows.append(Result(teacher="a", student="s", framework="f", llm="l", task="average", value=30, loss="kd"))
    (plot,) = all_plots(Grid(rows))
    assert math.isnan(plot.data[0]["gap_half"])
    assert (write(plot, tmp_path)[2]).read_text().splitlines()[1].endswith("10.0,")
