"""Scoring one file of predictions: whoever wrote it, without parameters, to the same bytes."""

import json
import random
import subprocess
import sys

import pytest
from kd_evalsuite.cli import app
from kd_evalsuite.items import DataError
from kd_evalsuite.single import load_replies, report
from kd_evalsuite.tasks import EVERY, PROTOCOLS, TASKS
from typer.testing import CliRunner

from packages.evalsuite.tests.helpers.benchmarks import write_jsonl
from packages.evalsuite.tests.helpers.replies import items_of, predicted, told

RUN = CliRunner()


@pytest.mark.parametrize("key", EVERY)
def test_gold_replies_get_the_best_score_and_silence_none(key, benchmark_root, tmp_path):
    found = report(load_replies(key, told(benchmark_root, key, tmp_path), benchmark_root), "paper")
    assert found["value"] == pytest.approx(found["best"])
    assert found["unparsed"] == 0
    silent = report(load_replies(key, told(benchmark_root, key, tmp_path, lambda i: ""), benchmark_root), "paper")
    assert silent["value"] == 0
    assert silent["unparsed"] == silent["items"] == silent["predictions"]["blank"]
    assert silent["favourite"]["degenerate"]


def test_json_has_everything_that_says_how_far_to_trust_a_score(benchmark_root, tmp_path):
    file = told(benchmark_root, "mme_perception", tmp_path, lambda i: "Yes")
    found = report(load_replies("mme_perception", file, benchmark_root), "paper")
    assert (found["value"], found["unit"], found["best"], found["chance"]) == (100, "points of 400", 400, 150)
    assert (found["n"], found["unparsed"], found["top_answer_share"]) == (24, 0, 1)
    assert found["scorer"].startswith("paper-1+")
    assert set(found["categories"]) == {"color", "count"}
    assert found["categories"]["color"]["value"] == 50
    assert found["data"] == {"sha256": found["data"]["sha256"], "items": 24, "public_items": 2114, "complete": False}
    gqa = report(load_replies("gqa", told(benchmark_root, "gqa", tmp_path), benchmark_root), "paper")
    assert (gqa["value"], gqa["unit"]) == (100, "percent")
    assert gqa["chance"] is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("key", TASKS)
def test_no_protocol_minds_the_order_of_predictions_and_scores_stay_in_range(key, protocol, benchmark_root, tmp_path):
    rng = random.Random(key)
    replies = {
        i.id: rng.choice([i.gold[0], "A", "B.", "Yes", "no", "7", "", "The answer is (C)."])
        for i in items_of(benchmark_root, key)
    }
    file = told(benchmark_root, key, tmp_path, lambda i: replies[i.id])
    found = report(load_replies(key, file, benchmark_root), protocol)
    lines = file.read_text().splitlines(keepends=True)
    rng.shuffle(lines)
    file.write_text("".join(lines))
    assert report(load_replies(key, file, benchmark_root), protocol) == found
    for part in (found, *found["metrics"], *found["categories"].values()):
        assert 0 <= part["value"] <= found["best"]
        assert part["stderr"] >= 0


def test_the_command_needs_no_parameters_and_prints_nothing_but_json(benchmark_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = told(benchmark_root, "mmvp", tmp_path)
    command = ["score", "--task", "mmvp", "--protocol", "lmms", "--predictions", str(file), "--json"]
    done = RUN.invoke(app, [*command, "--data", str(benchmark_root), "--out", str(tmp_path / "s.json")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["metric"], found["value"], found["n"], found["protocol"]) == ("pair_accuracy", 100.0, 6, "lmms")
    assert json.loads((tmp_path / "s.json").read_text()) == found
    folder = RUN.invoke(app, [*command, "--data", str(benchmark_root / "mmvp")])
    assert json.loads(folder.stdout) == found
    without = RUN.invoke(app, command)
    assert without.exit_code == 2
    assert "Expected --data" in without.stderr


def test_scoring_imports_no_model_and_gives_the_same_bytes(benchmark_root, tmp_path):
    file = told(benchmark_root, "textvqa", tmp_path)
    command = ["score", "--task", "textvqa", "--predictions", str(file), "--data", str(benchmark_root), "--json"]
    code = (
        f"import sys\nfrom kd_evalsuite.cli import app\ntry:\n    app({command!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(outputs) == 1
    assert json.loads(outputs.pop())["value"] == 100


def test_a_run_with_failures_has_no_score(benchmark_root, tmp_path):
    file = told(benchmark_root, "gqa", tmp_path)
    lines = file.read_text().splitlines()
    lines[4] = json.dumps({"id": "20000004", "error": "HTTP 500"})
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"1 of 12 items failed and have no reply, e\.g\. 20000004: HTTP 500"):
        load_replies("gqa", file, benchmark_root)


def test_a_metric_that_no_item_counts_for_is_left_out(tmp_path):
    rows = [{"question": f"q{k}", "choices": ["x", "y"], "answer": 0, "image": None} for k in range(3)]
    write_jsonl(tmp_path / "scienceqa/test.jsonl", rows)
    file = told(tmp_path, "scienceqa", tmp_path)
    assert report(load_replies("scienceqa", file, tmp_path), "paper")["metrics"] == []
    with pytest.raises(DataError, match="No item counts"):
        report(load_replies("scienceqa", file, tmp_path), "cambrian")  # which counts those with an image


def test_a_reply_that_comes_twice_is_an_error(benchmark_root, tmp_path):
    file = told(benchmark_root, "gqa", tmp_path)
    file.write_text(file.read_text() + file.read_text().splitlines()[3] + "\n")
    with pytest.raises(DataError, match="'20000003' is there twice"):
        load_replies("gqa", file, benchmark_root)


def test_errors_vary_together_where_questions_share_a_picture(benchmark_root, tmp_path):
    """DocVQA's fixture asks three questions a page: answers that are right page by page have the larger error."""
    by_page = told(benchmark_root, "docvqa", tmp_path, lambda i: i.gold[0] if int(i.id) // 3 % 2 else "no")
    grouped = report(load_replies("docvqa", by_page, benchmark_root), "paper")
    mixed = told(benchmark_root, "docvqa", tmp_path, lambda i: i.gold[0] if int(i.id) % 2 else "no", name="m.jsonl")
    single = report(load_replies("docvqa", mixed, benchmark_root), "paper")
    assert grouped["value"] == single["value"] == 50
    assert grouped["stderr"] == pytest.approx(100 * (0.25 / 4 * 4 / 3) ** 0.5)
    assert single["stderr"] < grouped["stderr"] / 2


def test_rescore_shows_every_protocol_for_a_file_and_for_a_folder(benchmark_root, tmp_path):
    file = told(benchmark_root, "cvbench_2d", tmp_path, lambda i: f"The answer is: {i.gold[0]}")
    command = ["rescore", "--task", "cvbench_2d", "--predictions", str(file), "--data", str(benchmark_root)]
    found = {r["protocol"]: r for r in json.loads(RUN.invoke(app, [*command, "--json"]).stdout)}
    assert list(found) == list(PROTOCOLS)
    assert {p: r["value"] for p, r in found.items()} == {
        "paper": 100, "cambrian": 0, "lmms": 0, "vlmevalkit": 100, "official": 100,
    }  # fmt: skip
    table = RUN.invoke(app, command)
    assert table.exit_code == 0
    assert "accuracy_by_source" in table.output


def test_a_folder_of_predictions_is_scored_without_parameters_and_under_another_protocol(benchmark_root, tmp_path):
    from packages.evalsuite.tests.unit.test_score import write

    write(benchmark_root, tmp_path / "p", lambda i: f"The answer is: {i.gold[0]}", keys=["mmvp", "gqa"])
    command = ["score", "--predictions", str(tmp_path / "p"), "--data", str(benchmark_root), "--json"]
    plain = json.loads(RUN.invoke(app, [*command, "--out", str(tmp_path / "a")]).stdout)
    other = json.loads(RUN.invoke(app, [*command, "--out", str(tmp_path / "b"), "--protocol", "cambrian"]).stdout)
    values = [{s["benchmark"]: s["value"] for s in one[0]["scores"][::-1]} for one in (plain, other)]
    assert (values[0]["mmvp"], values[1]["mmvp"]) == (1, 0)
    assert other[0]["scores"][0]["benchmark_version"].startswith("cambrian-1+")
    done = RUN.invoke(app, ["rescore", "--predictions", str(tmp_path / "p"), "--data", str(benchmark_root)])
    assert done.exit_code == 0
    assert "asked with the prompts of cambrian" in " ".join(done.output.split())


def test_predictions_of_some_items_are_scored_on_these(benchmark_root, tmp_path):
    file = predicted(benchmark_root, "gqa", tmp_path / "p", limit=4)
    n = len(file.read_text().splitlines())
    assert n < 12
    one = ["score", "--task", "gqa", "--predictions", str(file)]
    for command in (one, ["rescore", "--predictions", str(file.parent)]):
        done = RUN.invoke(app, [*command, "--data", str(benchmark_root), "--json"])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        found = found if isinstance(found, dict) else found[0]
        assert (found["n"], found["value"], found["data"]["complete"]) == (n, 100, False)


def test_what_the_manifest_beside_a_file_says_is_in_its_score(benchmark_root, tmp_path):
    chosen = predicted(benchmark_root, "ai2d", tmp_path / "ll", mode="loglikelihood", blind=True)
    asked = predicted(benchmark_root, "ai2d", tmp_path / "lmms", protocol="lmms", prompts="lmms")
    alone = told(benchmark_root, "ai2d", tmp_path)

    def score(file, *options):
        command = ["score", "--task", "ai2d", "--predictions", str(file), "--data", str(benchmark_root), "--json"]
        done = RUN.invoke(app, [*command, *options])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        return found["scorer"].partition("+")[0], found["predictions"]["mode"], found["predictions"]["blind"]

    assert score(chosen) == ("loglikelihood-paper-1", "loglikelihood", True)
    assert score(asked) == ("lmms-1", "generate", False)
    assert score(asked, "--protocol", "paper") == ("paper-1", "generate", False)
    assert score(alone) == ("paper-1", None, None)
    command = ["score", "--predictions", str(chosen.parent), "--out", str(tmp_path / "s"), "--json"]
    (whole,) = json.loads(RUN.invoke(app, [*command, "--data", str(benchmark_root)]).stdout)
    versions = [s["benchmark_version"] for s in whole["scores"]]
    assert all(version.startswith("loglikelihood-paper-1+") for version in versions)
    assert versions[0] == report(load_replies("ai2d", chosen, benchmark_root), "paper")["scorer"]


def test_a_hostile_favourite_reply_reaches_no_terminal(benchmark_root, tmp_path):
    """Escape sequences of both kinds, markup, and half a character that UTF-8 cannot hold."""
    said = "\x1b[31mred\x9b2J[bold]\ud800"
    rows = [{"id": i.id, "prediction": said} for i in items_of(benchmark_root, "gqa")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["score", "--task", "gqa", "--predictions", str(tmp_path / "p.jsonl"), "--data", str(benchmark_root)]
    for options in ([], ["--json"], ["--out", str(tmp_path / "s.json")]):
        done = RUN.invoke(app, [*command, *options])
        assert done.exit_code == 0, done.output
        assert not {"\x1b", "\x9b", "\ud800"} & set(done.output)
    assert json.loads((tmp_path / "s.json").read_text())["favourite"]["answer"] == said.lower()
