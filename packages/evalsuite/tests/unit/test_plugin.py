"""A model of another package, named by entry point."""

import importlib

import pytest
from kd_evalsuite.cli import app
from kd_evalsuite.models.plugin import find_plugin, plugin_ref
from kd_evalsuite.predictions import read_manifest, read_predictions
from typer.testing import CliRunner

CODE = """
from kd_evalsuite.models.base import Reply

class Mine:
    def __init__(self, word="A"):
        self.word = word

    def answer(self, requests, max_new_tokens):
        return [Reply(self.word, 1) for _ in requests]

def nothing():
    return object()
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip installs it."""
    folder = tmp_path / "site"
    about = folder / "kd_plugin_of_tests-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "kd_plugin_of_tests.py").write_text(CODE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kd-plugin-of-tests\nVersion: 1.0\n")
    points = "mine = kd_plugin_of_tests:Mine\nnothing = kd_plugin_of_tests:nothing\n"
    (about / "entry_points.txt").write_text(f"[kd_evalsuite.models]\n{points}")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    return about


def run(root, out, model, *more, command="run"):
    options = ["--tasks", "mmvp", "--data", str(root), "--out", str(out), "--model", model]
    return CliRunner().invoke(app, [command, *options, *more])


def test_a_plugin_answers_and_its_argument_is_part_of_what_it_is(package, benchmark_root, tmp_path):
    assert run(benchmark_root, tmp_path / "a", "plugin:mine").exit_code == 0
    done = run(benchmark_root, tmp_path / "b", "plugin:mine=B")
    assert done.exit_code == 0, done.output
    assert {p.prediction for p in read_predictions(tmp_path / "b/mmvp.jsonl").values()} == {"B"}
    one, other = (read_manifest(tmp_path / name).model for name in "ab")
    assert (one.kind, one.name, other.name) == ("plugin", "mine", "mine=B")
    assert one.sha256 != other.sha256


def test_another_version_of_the_package_is_another_model(package):
    before = plugin_ref(*find_plugin("mine"))
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: kd-plugin-of-tests\nVersion: 1.1\n")
    importlib.invalidate_caches()
    assert plugin_ref(*find_plugin("mine")).sha256 != before.sha256


def test_what_cannot_answer_and_what_is_not_there_are_errors(package, benchmark_root, tmp_path):
    done = run(benchmark_root, tmp_path / "a", "plugin:nothing")
    assert done.exit_code == 2
    assert "expected a model with `answer" in " ".join(done.output.split())
    done = run(benchmark_root, tmp_path / "a", "plugin:other")
    assert done.exit_code == 2
    assert "known: mine, nothing" in " ".join(done.output.split())


def test_shares_of_another_model_are_refused_and_start_over_with_replace(package, benchmark_root, tmp_path):
    assert run(benchmark_root, tmp_path, "plugin:mine").exit_code == 0
    for share in ("1/2", "2/2"):
        done = run(benchmark_root, tmp_path, "plugin:mine=B", "--shard", share, command="predict")
        assert done.exit_code == 2
        assert "holds predictions of something else" in " ".join(done.output.split())
    assert read_manifest(tmp_path).model.name == "mine"
    said = []
    for share in ("1/2", "2/2"):
        done = run(benchmark_root, tmp_path, "plugin:mine=B", "--shard", share, "--replace", command="predict")
        assert done.exit_code == 0, done.output
        said.append(" ".join(done.output.split()))
    assert "the other shares are not complete yet" in said[0]
    assert "all shares are there and were put together" in said[1]
    assert read_manifest(tmp_path).model.name == "mine=B"
    assert {p.prediction for p in read_predictions(tmp_path / "mmvp.jsonl").values()} == {"B"}


def test_a_dry_run_counts_what_shares_hold_and_names_those_of_something_else(package, benchmark_root, tmp_path):
    assert run(benchmark_root, tmp_path, "plugin:mine", "--shard", "1/2", command="predict").exit_code == 0
    n = len(read_predictions(tmp_path / "shards/1-of-2/mmvp.jsonl"))
    done = run(benchmark_root, tmp_path, "plugin:mine", "--shard", "2/3", "--dry-run", command="predict")
    assert f"mmvp: 12 items, {n} done" in done.output
    done = run(benchmark_root, tmp_path, "plugin:mine=B", "--dry-run", command="predict")
    assert "--replace would be needed" in " ".join(done.output.split())
