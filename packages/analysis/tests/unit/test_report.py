import csv
import html
import json
import re
from html.parser import HTMLParser

import pytest
from kd_analysis.claims import Resampling
from kd_analysis.cli import app
from kd_analysis.report import report
from kd_analysis.words import MINUS, number, p_value, signed
from typer.testing import CliRunner

HOW = Resampling(seed=0, n_bootstrap=300, level=0.95)


class Page(HTMLParser):
    """Open elements must close in order; collects text, ids and addresses."""

    VOID = frozenset({"meta", "br", "link", "img", "use", "path", "circle", "rect"})

    def __init__(self):
        super().__init__()
        self.open, self.text, self.ids, self.addresses, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id"]
        self.addresses += [v for k, v in attrs if k in ("href", "src", "xlink:href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    page = Page()
    page.feed(path.read_text())
    assert page.open == []
    return page


def write(root, out="report"):
    found = report([root / "zeroshot"], [root / "eval"], root / "cka", root / out, how=HOW, encoders={})
    return found, root / out


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_study):
    """The report of a whole study; read only."""
    root = tmp_path_factory.mktemp("study")
    write_study(root)
    return write(root)


def test_the_page_is_well_formed_and_needs_nothing_from_outside(written):
    _, out = written
    page = read(out / "report.html")
    assert "script" not in page.tags
    assert all(a.startswith("#") for a in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 5
    assert "@import" not in (out / "report.html").read_text()
    urls = set(re.findall(r"https?://[^\"'\s<>]+", (out / "report.html").read_text()))
    assert {u for u in urls if not u.startswith("http://www.w3.org/")} == set()


def test_the_page_says_the_answer_first_with_its_interval(written):
    found, out = written
    text = html.unescape((out / "report.html").read_text())
    claim = found.answer[0]
    for part in (
        "Not resolvable",
        signed(claim.estimate.value),
        signed(claim.estimate.low),
        signed(claim.estimate.high),
    ):
        assert part in text.split("<h2>")[0]


def test_the_pages_hold_every_score_with_its_error_and_chance(written):
    found, out = written
    text, markdown = (out / "report.html").read_text(), (out / "report.md").read_text()
    for row in found.rows:
        for cell in (row.zeroshot, row.average, *row.tasks.values()):
            if cell:
                assert number(cell.value) in text
                assert f"{number(cell.value)} ± {number(cell.half)}" in markdown
    assert f"<td>{number(found.chances['mme_perception'])}</td>" in text
    assert all(m.ref.sha256[:12] in text and m.ref.sha256[:12] in markdown for m in found.models)


def test_the_tables_are_in_full_precision(written):
    found, out = written
    with (out / "scores.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    one = next(line for line in lines if line["model"] == "teacher large" and line["task"] == "gqa")
    assert float(one["value"]) == found.rows[0].tasks["gqa"].value
    assert {p.name for p in out.iterdir()} == {
        "report.html", "report.md", "answer.json", "scores.csv", "claims.csv", "gaps.csv", "cka.csv", "models.csv",
    }  # fmt: skip
    answer = json.loads((out / "answer.json").read_text())
    assert answer["teachers_best_first"] == ["large", "small"]
    assert answer["claims"][0]["verdict"] == "not resolvable"


def test_equal_inputs_give_equal_bytes(written, inputs):
    one, two = written[1], write(inputs)[1]
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_without_vlms_and_similarities_the_page_says_so(seeded):
    _, out = write(seeded)
    text = (out / "report.html").read_text()
    assert "No VLM was scored" in text
    assert "No similarities were given" in text
    assert "SD between seeds" in text
    assert "items and 3 seeds" in (out / "claims.csv").read_text()
    assert read(out / "report.html").tags.count("svg") == 2


def test_names_cannot_write_html_or_break_a_table(inputs, write_zeroshot):
    name = "x<img src=1>|y"
    path = inputs / "zeroshot" / "teacher-small"
    scores = json.loads((path / "scores.json").read_text())
    scores["model"]["name"] = name
    (path / "scores.json").write_text(json.dumps(scores))
    _, out = write(inputs)
    assert "<img" not in (out / "report.html").read_text()
    assert "&lt;img src=1&gt;|y" in (out / "report.html").read_text()
    assert "x&lt;img src=1>\\|y" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "1.2"), (-3.0, f"{MINUS}3.0"), (-0.01, "0.0"), (None, "--"), (float("nan"), "--")]
)
def test_numbers_are_set_for_reading(value, text):
    assert number(value) == text


def test_signs_and_small_p_are_set_for_reading():
    assert (signed(2.0), signed(-2.0)) == ("+2.0", f"{MINUS}2.0")
    assert (p_value(0.0004), p_value(0.04), p_value(None)) == ("< .001", ".040", "--")


def test_the_command_writes_the_page_and_says_the_answer(inputs, params_file):
    paths = ["--zeroshot", inputs / "zeroshot", "--eval", inputs / "eval", "--cka", inputs / "cka"]
    call = ["report", "--params", params_file(), *paths, "--out", inputs / "r"]
    dry = CliRunner().invoke(app, [str(a) for a in [*call, "--dry-run"]])
    assert dry.exit_code == 0
    assert not (inputs / "r").exists()
    done = CliRunner().invoke(app, [str(a) for a in call])
    assert done.exit_code == 0
    assert "Not resolvable. Students of large" in done.output
    assert (inputs / "r" / "report.html").is_file()
