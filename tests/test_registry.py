"""The one stage that always runs notices a registry that lacks models."""

import json
import sqlite3
from pathlib import Path

import pytest
from kd_distill import tracking
from kd_distill.journal import Journal, register

from pipeline import registry


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / ".dvc").mkdir()
    forget_the_client()
    model = tmp_path / "models" / "teacher-a"
    model.mkdir(parents=True)
    (model / "open_clip_model.safetensors").write_bytes(b"weights")
    journal = Journal.open(model / "journal.jsonl", experiment="distill", name="teacher-a", params={"lr": 1e-3})
    journal.metrics(1, {"train/loss": 2.0})
    journal.finish(kind="teacher", name="teacher-a", tags={})
    register(model, tmp_path / "refs" / "scratch" / "teacher-a.json")
    return tmp_path


def forget_the_client() -> None:
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()


def generation(project: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    out = project / "refs" / "registry.json"
    monkeypatch.setattr("sys.argv", ["registry", "--refs", str(project / "refs"), "--out", str(out)])
    registry.main()
    return json.loads(out.read_text())["generation"]


def test_the_generation_stays_while_the_registry_holds_everything(project, monkeypatch):
    assert [generation(project, monkeypatch) for _ in range(2)] == [1, 1]


def test_the_generation_grows_when_the_database_is_lost_and_stays_once_it_is_rebuilt(project, monkeypatch):
    assert generation(project, monkeypatch) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'empty.db'}")
    forget_the_client()
    assert generation(project, monkeypatch) == 2
    register(project / "models" / "teacher-a")
    assert generation(project, monkeypatch) == 2


def test_without_references_nothing_is_lacking(tmp_path):
    assert registry.lacking(tmp_path) == []


def test_a_database_that_an_ended_process_left_half_made_is_made_again(tmp_path, monkeypatch):
    database = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    (tmp_path / "mlflow.db.part").write_bytes(b"half a database")
    tracking.client.cache_clear()
    assert tracking.client().search_experiments()[0].name == "Default"
    assert not (tmp_path / "mlflow.db.part").exists()
    with sqlite3.connect(database) as opened:
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    tracking.client.cache_clear()
