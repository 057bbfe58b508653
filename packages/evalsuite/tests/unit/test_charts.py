import math
import re
import xml.etree.ElementTree as ET  # of our own figures

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kd_evalsuite import charts

POINTS = st.floats(0, 100)
NAMES = st.text(max_size=40)


def numbers(figure):
    return [float(x) for x in re.findall(r'\b(?:x|y|x1|x2|y1|y2|cx|cy|width|height)="([^"]*)"', figure)]


def parsed(figure):
    root = ET.fromstring(figure)  # noqa: S314
    _, _, width, height = map(float, root.get("viewBox").split())
    assert all(math.isfinite(x) for x in numbers(figure))
    return root, width, height


@given(st.lists(st.tuples(NAMES, POINTS, POINTS, st.none() | POINTS), min_size=1, max_size=20))
def test_scores_are_well_formed_and_inside_the_figure(rows):
    lines = [charts.Line(name, [charts.Dot(a, min(a, b), max(a, b), "#000")], chance) for name, a, b, chance in rows]
    root, width, height = parsed(charts.scores(lines, "title"))
    circles = [e for e in root if e.tag.endswith("circle")]
    assert len(circles) == len(rows)
    assert all(0 <= float(c.get("cx")) <= width and 0 <= float(c.get("cy")) <= height for c in circles)


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 50), st.just(math.nan) | st.floats(0, 50)), min_size=1))
def test_differences_lie_about_zero_inside_the_figure(rows):
    lines = [charts.Line("x", [charts.Dot(v, v - half, v + half, "#000")]) for v, half, _ in rows]
    root, width, _ = parsed(charts.differences(lines, [band for *_, band in rows], "title", ("A", "B")))
    circles = [float(e.get("cx")) for e in root if e.tag.endswith("circle")]
    zero = charts.LABELS + (charts.WIDTH - 14 - charts.LABELS) / 2
    assert all(charts.LABELS <= x <= width for x in circles)
    assert all((x - zero) * v >= -1e-6 or abs(x - zero) < 0.1 for x, (v, _, _) in zip(circles, rows, strict=True))


@pytest.mark.parametrize(
    ("value", "limit"), [(0.5, 0.5), (0.6, 0.6), (1.0, 1.0), (7.1, 8.0), (20.3, 24.0), (99.0, 100)]
)
def test_axes_end_at_round_numbers(value, limit):
    assert charts._round_up(value) == pytest.approx(limit)


def test_labels_are_escaped_and_equal_data_give_equal_figures():
    line = charts.Line('<script>"&', [charts.Dot(50, 40, 60, "#000")])
    assert "<script>" not in charts.bars([line], "<b>")
    assert charts.bars([line], "t") == charts.bars([line], "t")
