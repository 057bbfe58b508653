"""Stages side by side: order, what is left alone, what a failure stops."""

import json
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.locktable import write_whole_tables
from pipeline.order import Finished, in_order
from pipeline.parallel import Paths, dependencies, why_held, with_all_after
from pipeline.stage import outcome_of

ROOT = Path(__file__).resolve().parents[1]
NEEDS = {"world": set(), "a": {"world"}, "b": {"world"}, "cache": {"a"}, "report": {"b", "cache"}}


class Recorder:
    """Runs nothing; remembers what was asked for and how many ran at once."""

    def __init__(self, outcomes: dict[str, str] | None = None) -> None:
        self.outcomes = outcomes or {}
        self.calls: list[str] = []
        self.active = self.most = 0
        self.lock = threading.Lock()

    def run(self, stage: str) -> Finished:
        with self.lock:
            self.calls.append(stage)
            self.active += 1
            self.most = max(self.most, self.active)
        time.sleep(0.01)
        with self.lock:
            self.active -= 1
        return Finished(stage, self.outcomes.get(stage, "ran"), 0.0, Path("log"))


def drive(recorder: Recorder, stale: set[str], jobs: int = 2) -> list[Finished]:
    return in_order(NEEDS, stale, jobs, recorder.run, lambda stage: None, lambda end: None)


def test_every_stage_runs_after_what_it_needs():
    recorder = Recorder()
    drive(recorder, {"world"})
    assert sorted(recorder.calls) == sorted(NEEDS)
    for stage, before in NEEDS.items():
        assert all(recorder.calls.index(b) < recorder.calls.index(stage) for b in before)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_no_more_than_jobs_run_at_once(jobs):
    recorder = Recorder()
    drive(recorder, {"world"}, jobs)
    assert recorder.most == min(jobs, 2)  # the graph is two wide


def test_up_to_date_stages_are_left_alone():
    recorder = Recorder()
    drive(recorder, {"cache"})
    assert recorder.calls == ["cache", "report"]


@pytest.mark.parametrize("outcome", ["unchanged", "same"])
def test_a_stage_that_changed_nothing_wakes_nothing(outcome):
    recorder = Recorder({"world": outcome})
    drive(recorder, {"world"})
    assert recorder.calls == ["world"]


def test_what_a_stage_did_is_read_from_dvcs_own_words(tmp_path):
    """A stage that always runs is new the first time, and the second time only where its output changed."""
    run = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "dvc.yaml").write_text(
        "stages: {check: {cmd: cp a b, always_changed: true, outs: [{b: {cache: false, persist: true}}]}, "
        "after: {cmd: cp b c, deps: [b], outs: [c]}}"
    )
    (tmp_path / "a").write_text("1")
    run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"])

    def outcome(stage: str) -> str:
        command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
        return outcome_of(run(command, stderr=subprocess.STDOUT, capture_output=False, stdout=subprocess.PIPE).stdout)

    assert [outcome("check"), outcome("check"), outcome("after"), outcome("after")] == [
        "ran",
        "same",
        "ran",
        "unchanged",
    ]
    (tmp_path / "a").write_text("2")
    assert outcome("check") == "ran"


def test_a_failure_holds_back_what_depends_on_it_and_nothing_else():
    recorder = Recorder({"a": "failed"})
    ends = drive(recorder, {"world"})
    assert recorder.calls == ["world", "a", "b"]
    assert ends[-1] == Finished("a", "failed", 0.0, Path("log"))
    assert {end.stage: end.why for end in ends if end.outcome == "held"} == {
        "cache": "needs a",
        "report": "needs cache",
    }


def test_a_stage_that_reads_a_folder_runs_on_what_is_there(tmp_path):
    models, refs = tmp_path / "models", tmp_path / "refs"
    models.mkdir()
    paths = {
        "train": Paths((), (models / "one",)),
        "register": Paths((models,), (refs,)),
        "measure": Paths((models / "one" / "weights",), ()),
        "score": Paths((refs / "one.json",), ()),
    }
    assert why_held("register", {"train"}, paths) == ""
    assert why_held("measure", {"train"}, paths) == "needs train"
    assert why_held("score", set(), paths) == "one.json is not there"


def test_the_studys_graph_reaches_into_the_roots_file():
    with Repo(str(ROOT)) as repo:
        needs = dependencies(repo, "studies/seeds/dvc.yaml")
    assert needs["world"] == set()
    assert needs["studies/seeds/dvc.yaml:scratch@teacher-large"] == {"world"}
    assert "register_scratch" not in needs


def test_all_that_needs_a_stage_comes_after_it():
    assert with_all_after({"a"}, NEEDS) == {"a", "cache", "report"}
    assert with_all_after({"world"}, NEEDS) == set(NEEDS)
    assert with_all_after(set(), NEEDS) == set()


def test_a_dvc_that_dies_while_it_writes_its_table_of_locks_leaves_the_one_before(tmp_path, monkeypatch):
    from dvc import rwlock
    from dvc.fs import localfs

    monkeypatch.setattr(rwlock, "_edit_rwlock", rwlock._edit_rwlock)  # undone afterwards
    write_whole_tables()
    with rwlock._edit_rwlock(str(tmp_path), localfs, False) as table:
        table["write"]["a.out"] = {"pid": 1, "cmd": "one"}
    before = (tmp_path / "rwlock").read_bytes()

    def half(value, file):
        file.write('{"write"')
        raise KeyboardInterrupt

    monkeypatch.setattr(rwlock.json, "dump", half)
    with pytest.raises(KeyboardInterrupt), rwlock._edit_rwlock(str(tmp_path), localfs, False) as table:
        table["write"].clear()
    assert (tmp_path / "rwlock").read_bytes() == before
    assert json.loads(before)["write"] == {"a.out": {"pid": 1, "cmd": "one"}}
