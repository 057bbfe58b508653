import csv
import html
import json
import re
from html.parser import HTMLParser

import pytest
from kd_analysis.claims import Resampling
from kd_analysis.cli import app
from kd_analysis.findings import Settings, find, read_inputs
from kd_analysis.report import report
from kd_analysis.scores import InputError
from kd_analysis.words import number, signed
from typer.testing import CliRunner

HOW = Resampling(seed=0, n_bootstrap=300, level=0.95)


def lookup(models):
    """A registry that knows one model."""
    return {m.ref.sha256: {"version": "7", "run": "0123456789abcdef"} for m in models if m.ref.name == "teacher-large"}


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
    found = report([root / "zeroshot"], [root / "eval"], root / "cka", root / out, Settings(HOW), lookup=lookup)
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
    assert page.tags.count("svg") == 6
    ids = set(page.ids)
    assert {a[1:] for a in page.addresses if not a.startswith("#figure")} <= ids | {""}
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
        "report.html", "report.md", "answer.json", "metrics.json", "scores.csv", "claims.csv", "gaps.csv", "cka.csv",
        "cka_score.csv", "models.csv", "data.csv", "results.csv", "tables", "figures", "images",
    }  # fmt: skip
    answer = json.loads((out / "answer.json").read_text())
    assert answer["teachers_best_first"] == ["large", "small"]
    assert answer["claims"][0]["verdict"] == "not resolvable"


def test_equal_inputs_give_equal_bytes(written, inputs):
    one, two = written[1], write(inputs)[1]
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert len(files) > 40
    for path in files:
        assert (one / path).read_bytes() == (two / path).read_bytes(), path


def test_without_vlms_and_similarities_the_page_says_so(seeded):
    _, out = write(seeded)
    text = (out / "report.html").read_text()
    assert "No VLM was scored" in text
    assert "No similarities were given" in text
    assert "SD between seeds" in text
    assert "items and 3 seeds" in (out / "claims.csv").read_text()
    assert read(out / "report.html").tags.count("svg") == 2


def test_the_page_says_what_the_data_cannot_resolve(written):
    found, out = written
    text = html.unescape((out / "report.html").read_text())
    section = text.split('id="open"')[1].split("<h2")[0]
    assert "How another training would have come out" in section
    assert "2 teachers have no rank correlation" in section
    for c in found.answer:
        assert f"A true difference below {number(c.detectable)} points" in section
    assert len(found.unresolved) == section.count("<dt>")
    assert all(one.why in (out / "report.md").read_text() for one in found.unresolved)


def test_models_and_data_are_named_with_version_run_and_digest(written):
    found, out = written
    text = (out / "report.html").read_text()
    section = text.split('id="made"')[1]
    assert "0123456789ab" in section
    assert "paper-1+12345678" in section
    with (out / "models.csv").open() as stream:
        lines = {line["model"]: line for line in csv.DictReader(stream) if line["blind"] == "False"}
    assert (lines["teacher-large"]["version"], lines["teacher-large"]["run"]) == ("7", "0123456789abcdef")
    assert (lines["teacher-small"]["version"], lines["teacher-small"]["run"]) == ("", "")
    with (out / "data.csv").open() as stream:
        assert {line["task"] for line in csv.DictReader(stream)} == {"zeroshot", *found.study.tasks}


def test_the_studys_tables_and_figures_stand_beside_the_page(written):
    found, out = written
    assert {p.stem for p in (out / "tables").iterdir()} >= {"table1", "table2", "table3", "relative", "teachers"}
    assert {p.name for p in (out / "figures").iterdir()} == {"figure2.svg", "figure2.png", "figure2.csv"}
    assert {p.stem for p in (out / "images").iterdir()} == {"answer", "gaps", "tasks", "cka_tasks", "cka_score"}
    (table,) = [t for t in found.tables if t.name == "table2"]
    row = next(r for b in table.blocks for r in b.rows if r.labels == ("vit", "large"))
    cell = next(r for r in found.rows if r.role == "student" and r.teacher == "large").average
    assert row.cells["average"].value == pytest.approx(cell.value)
    assert row.cells["average"].half == pytest.approx(cell.half)


def test_metrics_are_finite_or_null_and_by_model(written):
    found, out = written
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["answer"]["zero-shot top-1"]["difference"] == found.answer[0].estimate.value
    assert metrics["scores"]["teacher large"]["average"] == found.rows[0].average.value
    assert metrics["cka"]["student-vit--none--clip"]["other"] is None


def found_in(root, settings=None):
    """What a report would say, without its pages."""
    return find(*read_inputs([root / "zeroshot"], [root / "eval"], root / "cka"), settings or Settings(HOW))


def test_models_scored_on_other_data_are_pointed_out(inputs):
    path = inputs / "zeroshot" / "teacher-small" / "scores.json"
    path.write_text(path.read_text().replace("paper-1+12345678", "paper-1+87654321"))
    assert any("paper-1+12345678, paper-1+87654321" in one.why for one in found_in(inputs).unresolved)


def test_encoders_taken_inside_a_training_answer_nothing_and_stand_in_the_curves(inputs, write_zeroshot):
    before = found_in(inputs)
    names = [f"student-vit--{t}--clip-kd-e{e}" for t in ("large", "small") for e in (1, 2)]
    write_zeroshot(inputs / "zeroshot", dict.fromkeys(names, 0.2))
    after = found_in(inputs, Settings(HOW, epochs=3.0))
    assert after.answer == before.answer
    assert [c.estimate for c in after.checks] == [c.estimate for c in before.checks]
    (curve,) = [p for p in after.plots if p.name == "figure3a"]
    assert sorted({p["epoch"] for p in curve.data}) == [1, 2, 3]


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


def test_similarities_at_other_taps_alone_are_not_taken_for_none(inputs):
    with pytest.raises(InputError, match=r"Expected similarities at 'embed', got those at pooled[.] Set analysis.tap"):
        found_in(inputs, Settings(HOW, tap="embed"))


def test_similarities_of_another_tap_do_not_mix_into_the_page(inputs):
    path = inputs / "cka" / "cka.json"
    records = json.loads(path.read_text())
    before = found_in(inputs)
    path.write_text(json.dumps([*records, *({**r, "tap": "embed", "value": 0.0} for r in records)]))
    after = found_in(inputs)
    assert after.alike == before.alike
    assert len(after.every_record) == 2 * len(before.every_record)
    other = found_in(inputs, Settings(HOW, tap="embed"))
    assert {r.value for r in other.results if r.metric == "cka"} == {0.0}


def test_paired_differences_of_teachers_and_other_measures_stand_on_the_page(inputs):
    one = {"tap": "pooled", "task": "gqa", "student": "student-vit--large--clip-kd", "teacher": "teacher-large"}
    shas = {"student_sha256": "0" * 64, "teacher_sha256": "1" * 64, "reason": "", "n": 99, "detail": {}}
    values = {"value": 0.12, "low": 0.1, "high": 0.14, "se": 0.01, "correlation": 0.9, "n": 99, "estimator": "debiased"}
    (inputs / "cka" / "differences.json").write_text(json.dumps([one | values | {"other": "teacher-small"}]))
    seen = (("own teacher", 0.61), ("untrained", 0.2))
    measured = [one | shas | {"relation": r, "measure": "rsa", "value": v} for r, v in seen]
    (inputs / "cka" / "measures.json").write_text(json.dumps(measured))
    _, out = write(inputs)
    text = (out / "report.html").read_text()
    assert "+0.120" in text
    assert "0.610" in text
    assert {p.stem for p in (out / "tables").iterdir()} >= {"cka_differences", "measures"}


def test_every_relation_has_a_look():
    from kd_analysis.figures import LOOKS
    from kd_analysis.similarity import RELATIONS

    assert set(LOOKS) == set(RELATIONS)


def test_results_under_the_papers_names_stand_beside_its_numbers(inputs):
    assert found_in(inputs).beside.empty
    names = {"large": "CLIP-ViT-L", "small": "CLIP-ViT-B", "llava": "TinyLLaVA", "lm-tiny": "Qwen2-0.5B"}
    table = found_in(inputs, Settings(HOW, names=names)).beside
    assert [b.title for b in table.blocks] == ["TinyLLaVA, Qwen2-0.5B, CLIP-ViT-L", "TinyLLaVA, Qwen2-0.5B, CLIP-ViT-B"]
    assert [len(b.rows) for b in table.blocks] == [17, 17]
    assert [r.labels[0] for r in table.blocks[0].rows[:2]] == ["Average", "MME-P"]
    assert [r.cells["paper"].value for r in table.blocks[0].rows[:2]] == [36.94, 1046.99]


def test_two_trainings_of_one_student_are_a_control_of_their_own(inputs):
    path = inputs / "cka" / "cka.json"
    records = json.loads(path.read_text())
    again = [{**r, "relation": "two seeds", "value": 0.9} for r in records if r["relation"] == "own teacher"]
    path.write_text(json.dumps([*records, *again]))
    found = found_in(inputs)
    assert {round(a.seeds, 6) for a in found.alike if a.teacher} == {0.9}
    assert [a.own for a in found.alike] == [a.own for a in found_in(inputs).alike]
