import csv
import io
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from kd_analysis import emit
from kd_analysis.grid import Grid
from kd_analysis.paper import FAMILIES, printed, published
from kd_analysis.results import Result
from kd_analysis.study_tables import all_tables, data_sets, encoders, losses, similarity, students
from kd_analysis.table import Block, Cell, Column, Row, Table, marks

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def grid():
    return Grid(published())


def one(*rows: dict[str, float], better="high", titles=("a_b", "C & D")) -> Table:
    columns = (Column("x", titles[0], better=better), Column("y", titles[1], "50 % group", 3))
    blocks = (Block("block", tuple(Row((f"r{i}",), {k: Cell(v) for k, v in r.items()}) for i, r in enumerate(rows))),)
    return Table("t", "Title", "A caption with 5 % & more.", ("Name",), columns, blocks)


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ((1.0, 3.0, 2.0), "high", ["", "best", "second"]),
        ((1.0, 3.0, 2.0), "low", ["best", "", "second"]),
        ((3.0, 3.0, 2.0), "high", ["best", "best", "second"]),
        ((3.0, 2.0, 2.0), "high", ["best", "second", "second"]),
        ((1.001, 1.002, 0.5), "high", ["best", "best", "second"]),  # equal at the digits that are shown
        ((3.0, 2.0), "high", ["best", ""]),
        ((3.0,), "high", [""]),
        ((2.0, 2.0), "high", ["", ""]),
    ],
)
def test_the_best_and_the_second_of_a_block_are_marked_and_ties_alike(values, better, expected):
    table = one(*({"x": v} for v in values), better=better)
    found = marks(table, table.blocks[0])
    assert [found.get((i, "x"), "") for i in range(len(values))] == expected


def test_each_block_has_its_own_best():
    table = one({"x": 1.0}, {"x": 2.0})
    both = (table.blocks[0], Block("other", (Row(("a",), {"x": Cell(9.0)}), Row(("b",), {"x": Cell(8.0)}))))
    assert [sorted(marks(table, b)) for b in both] == [[(1, "x")], [(0, "x")]]


def test_what_is_missing_is_dashes_and_never_nought():
    table = one({"x": 1.0, "y": 0.0}, {"x": 2.0})
    assert "| r1 | **2.00** | -- |" in emit.markdown(table)
    assert r"r1 & \textbf{2.00} & -- \\" in emit.latex(table)
    assert "<td><b>2.00</b></td><td>--</td>" in emit.html(table)
    assert list(csv.reader(io.StringIO(emit.as_csv(table))))[2] == ["block", "r1", "2.0", "", "", ""]
    assert "0.000" in emit.markdown(table), "a nought that was measured is shown"


def test_intervals_stand_beside_values_and_unknown_ones_do_not():
    block = Block("", (Row(("a",), {"x": Cell(1234.56, 2.34)}),))
    table = Table("t", "T", "", ("Name",), (Column("x", "X", digits=1),), (block,))
    assert "1,234.6 ± 2.3" in emit.markdown(table)
    assert r"1,234.6 {\scriptsize$\pm$2.3}" in emit.latex(table)
    assert '1,234.6 <span class="pm">±&#8239;2.3</span>' in emit.html(table)
    assert emit.as_csv(table).splitlines()[1] == ",a,1234.56,2.34"


def test_text_from_outside_is_escaped_in_every_form():
    table = one({"x": 1.0}, titles=("<script>", "a|b"))
    table = replace(table, blocks=(Block("50_%&#", (Row(("<b>x|y\\",), {"x": Cell(1.0)}),)),))
    page = emit.html(table)
    assert "<script>" not in page
    assert "<b>x" not in page
    assert "&lt;b>x\\|y\\\\" in emit.markdown(table)
    tex = emit.latex(table)
    assert r"50\_\%\&\#" in tex
    assert r"y\textbackslash{}" in tex


def test_latex_has_as_many_cells_in_every_row(grid):
    for table in all_tables(grid, FAMILIES):
        body = emit.latex(table).split(r"\begin{tabular}")[1]
        count = len(table.stubs) + len(table.columns) + len(table.texts)
        rows = [line for line in body.splitlines() if line.endswith(r"\\") and r"\multicolumn" not in line]
        assert {line.replace(r"\&", "").count("&") for line in rows} == {count - 1}
        whole = emit.latex(table).replace(r"\{", "").replace(r"\}", "")
        assert whole.count("{") == whole.count("}")


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_pages_are_well_formed_and_need_nothing_from_outside(grid, tmp_path):
    for table in all_tables(grid, FAMILIES):
        page = next(p for p in emit.write(table, tmp_path) if p.suffix == ".html").read_text()
        reader = Balanced()
        reader.feed(page)
        assert reader.open == []
        assert "http" not in page
        assert "<script" not in page


# ---------------------------------------------------------------- the paper's tables


def printed_values(table, metric="score"):
    return {r.key: r.value for r in printed() if r.table == table and r.metric == metric}


@pytest.mark.parametrize(("number", "build"), [(1, encoders), (2, students), (4, losses), (5, data_sets)])
def test_the_tables_hold_every_printed_number(grid, number, build):
    table = build(grid)
    shown = sorted(c.value for b in table.blocks for r in b.rows for k, c in r.cells.items() if k != "params_m")
    expected = [r.value for r in printed() if r.table == f"Table {number}" and r.metric == "score"]
    assert shown == pytest.approx(sorted(expected))


def test_table_3_is_as_printed_but_for_the_row_that_contradicts_table_2(grid):
    table = similarity(grid, FAMILIES)
    rows = {r.labels[0]: r.cells for b in table.blocks for r in b.rows}
    values = printed_values("Table 3")
    for task, title in (("cvbench_2d", "CV-Bench 2D"), ("gqa", "GQA"), ("scienceqa", "ScienceQA"), ("mmvp", "MMVP")):
        expected = [v for k, v in values.items() if k[9] == task]
        assert [rows[title]["small_score"].value, rows[title]["large_score"].value] == expected
    assert [rows["ImageNet"][f"{side}_score"].value for side in ("small", "large")] == [36.56, 34.55]
    assert rows["GQA"]["cka_change"].value == pytest.approx(-0.078)
    assert {r.labels[0]: r.words["resolvable"] for b in table.blocks for r in b.rows} == {
        "GQA": "yes", "ScienceQA": "no", "MMVP": "no", "CV-Bench 2D": "no", "ImageNet": "yes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "ending"), [("table3", "md"), ("table4", "tex"), ("table5", "csv"), ("table5", "html")]
)
def test_the_files_are_as_they_were_reviewed(grid, tmp_path, name, ending):
    for table in all_tables(grid, FAMILIES):
        emit.write(table, tmp_path)
    got = (tmp_path / f"{name}.{ending}").read_bytes()
    if ending == "html":  # the style sheet is the report's and may change
        got = got[got.index(b"<table>") : got.index(b"</table>")]
    assert got == (GOLDEN / f"paper_{name}.{ending}").read_bytes()


def test_a_table_without_data_is_left_out():
    some = [Result(teacher="a", student=s, loss=s, task="imagenet", value=50.0) for s in ("", "s")]
    assert [t.name for t in all_tables(Grid(some), {})] == ["table2"]


def test_a_student_without_a_teacher_stands_last_in_table_2():
    rows = [Result(teacher=t, student="s", loss="kd", task="imagenet", value=v) for t, v in (("a", 1.0), ("b", 2.0))]
    rows.append(Result(teacher="none", student="s", loss="alone", task="imagenet", value=3.0))
    rows.append(Result(teacher="a", task="imagenet", value=5.0))
    table = students(Grid(rows))
    assert [r.labels for b in table.blocks for r in b.rows] == [("s", "a"), ("s", "b"), ("s", "none")]
    assert all(math.isnan(r.cells["imagenet"].half) for b in table.blocks for r in b.rows)
