import pytest
from kd_analysis.cli import app
from typer.testing import CliRunner


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize("command", ["tables", "figures", "stats"])
def test_every_command_shows_examples(command):
    found = call(command, "--help")
    assert found.exit_code == 0
    assert "For instance" in found.output


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    out = tmp_path_factory.mktemp("paper")
    return call("tables", "--source", "paper", "--out", out), out


def test_the_papers_tables_need_no_run_at_all(paper):
    found, out = paper
    assert found.exit_code == 0, found.output
    names = {p.name for p in out.iterdir()}
    for table in (
        "table1",
        "table2",
        "table3",
        "table4",
        "table5",
        "ranks",
        "pairs",
        "families",
        "teachers",
        "relative",
    ):
        assert {f"{table}.{e}" for e in ("csv", "md", "tex", "html")} <= names
    assert {"results.csv", "tables.html", "tables.md", "inconsistencies.csv"} <= names
    assert "Spearman −0.500 (p .450)" in found.output
    assert "inconsistent: Section 5.1: gap to CLIP-ViT-L 6.64" in found.output


def test_the_results_that_a_command_wrote_are_a_source(paper, tmp_path):
    _, out = paper
    again = call("tables", "--source", out / "results.csv", "--out", tmp_path, "--beside-paper")
    assert again.exit_code == 0, again.output
    for name in ("table1.csv", "table2.csv"):
        rows = [sorted((p / name).read_text().splitlines()) for p in (out, tmp_path)]
        assert rows[0] == rows[1]
    assert ",0.0," in (tmp_path / "beside_paper.csv").read_text()


def test_figures_and_statistics_of_the_paper(tmp_path):
    found = call("figures", "--source", "paper", "--out", tmp_path)
    assert found.exit_code == 0, found.output
    assert {p.name for p in tmp_path.iterdir()} == {"figure2.svg", "figure2.png", "figure2.csv"}
    assert "figure3a" in found.output
    told = call("stats", "--source", "paper")
    assert told.exit_code == 0
    assert "### Do better teachers make better students?" in told.output


def test_results_that_fill_no_figure_leave_an_empty_folder(tmp_path):
    (tmp_path / "r.csv").write_text("teacher,student,task,metric,value\nl,,gqa,score,1\n")
    found = call("figures", "--source", tmp_path / "r.csv", "--out", tmp_path / "out")
    assert found.exit_code == 0, found.output
    assert "wrote 0 figures" in found.output
    assert list((tmp_path / "out").iterdir()) == []  # a stage of DVC promises the folder


def test_wrong_sources_and_parameters_are_refused(tmp_path, params_file):
    assert call("tables", "--source", tmp_path / "none.csv").exit_code == 2
    assert "pass --params" in call("stats", "--source", "paper", "--set", "level=0.9").output
    (tmp_path / "r.csv").write_text("teacher,task,value\nl,gqa,1\nl,gqa,2\n")
    found = call("tables", "--source", tmp_path / "r.csv")
    assert found.exit_code == 2
    assert "1 cells have several" in found.output
    (tmp_path / "r.csv").write_text("teacher,student,task,value\nl,,gqa,1\nl,s,gqa,2\n")
    found = call("tables", "--source", tmp_path / "r.csv", "--params", params_file(families={"x": ["l", "big"]}))
    assert found.exit_code == 2
    assert "got big" in found.output
