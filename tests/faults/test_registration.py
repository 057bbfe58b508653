"""Registering a model, stopped before every one of its calls, and a registry whose checkout was moved or copied."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kd_distill import journal, tracking
from kd_distill.cli import app as distill
from kd_distill.journal import Journal, register
from kd_distill.tracking import IntegrityError, resolve
from mlflow import MlflowClient
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
WRITES = ("log_batch", "log_model_artifacts", "create_registered_model", "set_model_version_tag")
WRITES += ("set_registered_model_alias", "create_logged_model", "set_tag", "set_terminated", "log_inputs")


class Killed(BaseException):
    """The process ends here."""


def forget() -> None:
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it for children
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A trained model that is not registered, in a project of its own."""
    place = tmp_path / "a project"
    (place / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    forget()
    model = place / "models" / "student-a"
    model.mkdir(parents=True)
    (model / "open_clip_model.safetensors").write_bytes(b"weights")
    written = Journal.open(model / "journal.jsonl", experiment="distill", name="student-a", params={"lr": 1e-3})
    written._append({"event": "metrics", "step": 1, "time": 5, "values": {"train/loss": 2.0}})
    model_event = {"event": "model", "kind": "student", "name": "student-a", "tags": {"kd.arch": "vit", "kd.seed": "0"}}
    for event in (model_event, {"event": "end", "status": "FINISHED", "time": 9}):
        written._append(event)
    yield place
    forget()


def stop_before(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Every write of MLflow's client counts; the one of this number does not happen, nor does any after it."""
    done = [0]

    def counted(method):
        def wrapper(*arguments, **named):
            done[0] += 1
            if done[0] >= call:
                raise Killed
            return method(*arguments, **named)

        return wrapper

    for name in WRITES:
        monkeypatch.setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))


def registered_once() -> None:
    versions = tracking.client().search_model_versions("name = 'student-a'")
    assert len(versions) == 1
    assert {"sha256", "kd.arch", "kd.seed", "kd.kind"} <= versions[0].tags.keys()
    aliases = tracking.client().get_registered_model("student-a").aliases
    assert aliases.keys() == {"champion", "candidate"}
    assert resolve("models:/student-a").path.is_dir()


@pytest.mark.faults
def test_a_registration_stopped_before_any_of_its_calls_is_completed_by_the_next(project, tmp_path, monkeypatch):
    tracking.client()  # makes the tables, once for all copies
    forget()
    stopped = 0
    while True:
        place = shutil.copytree(project, tmp_path / f"stopped-{stopped}")
        monkeypatch.chdir(place)
        forget()
        with monkeypatch.context() as patched:
            stop_before(patched, stopped + 1)
            try:
                register(place / "models" / "student-a", place / "refs" / "student-a.json")
                break
            except Killed:
                stopped += 1
        forget()
        register(place / "models" / "student-a", place / "refs" / "student-a.json")
        registered_once()
    assert stopped >= 8, "fewer calls than a registration makes: the test stops at nothing"


@pytest.mark.faults
def test_control_a_version_found_by_its_tag_before_it_has_aliases_would_be_noticed(project, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_registered_model_alias", lambda *arguments: None)
        register(project / "models" / "student-a")
    with pytest.raises(AssertionError):
        registered_once()


@pytest.mark.faults
def test_a_version_of_other_files_is_not_taken_for_the_half_made_one(project, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(journal, "_half_made", lambda model, run_id: None)
        patched.setattr(MlflowClient, "set_model_version_tag", lambda *arguments: None)
        register(project / "models" / "student-a")
    stored = next((project / "mlruns").rglob("open_clip_model.safetensors"))
    stored.write_bytes(b"others!")
    register(project / "models" / "student-a")
    assert resolve("models:/student-a@candidate").sha256 == tracking.digest(project / "models" / "student-a")


@pytest.mark.parametrize("copied", [False, True])
def test_a_checkout_that_was_moved_or_copied_finds_its_models_at_the_new_place(copied, project, tmp_path, monkeypatch):
    ref = project / "refs" / "student-a.json"
    register(project / "models" / "student-a", ref)
    moved = tmp_path / "elsewhere, 100%" / "ünder"
    shutil.copytree(project, moved)
    if not copied:
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(project)
    monkeypatch.chdir(moved)
    forget()
    for asked in (moved / "refs" / "student-a.json", "models:/student-a", "models:/student-a@candidate"):
        assert resolve(asked).path.is_relative_to(moved / "mlruns")
    run = tracking.client().search_runs([tracking._experiment("distill")])[0]
    assert run.info.artifact_uri.startswith((moved / "mlruns").as_uri())
    if copied:
        monkeypatch.chdir(project)
        forget()
        assert resolve(ref).path.is_relative_to(project / "mlruns"), "the original is as it was"


def test_a_folder_that_was_damaged_between_training_and_registration_is_refused_with_code_5(project):
    folder = project / "models" / "student-b"
    folder.mkdir()
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(b"weights")
    written = Journal.open(folder / "journal.jsonl", experiment="distill", name="student-b", params={"lr": 1e-3})
    written._append(journal._declared("student", "student-b", {}, folder))  # `finish` would also start a thread
    written._append({"event": "end", "status": "FINISHED", "time": 9})
    weights.write_bytes(b"weighed")  # as a file of a damaged DVC cache would come back
    said = CliRunner().invoke(distill, ["register", str(folder), "--refs", str(project / "refs")])
    assert said.exit_code == 5, said.output
    assert "damaged or changed since" in said.output
    assert not (project / "refs" / "student-b.json").exists()
    weights.write_bytes(b"weights")  # the control
    assert CliRunner().invoke(distill, ["register", str(folder), "--refs", str(project / "refs")]).exit_code == 0


def test_a_registered_model_whose_bytes_changed_is_refused_with_code_5(project):
    ref = project / "refs" / "student-a.json"
    register(project / "models" / "student-a", ref)
    stored = next((project / "mlruns").rglob("open_clip_model.safetensors"))
    stored.write_bytes(b"weighed")
    with pytest.raises(IntegrityError, match="expected sha256"):
        resolve(ref)
    command = [
        sys.executable,
        "-m",
        "kd_distill",
        "cache",
        "--params",
        str(ROOT / "params.yaml"),
        "--teacher",
        str(ref),
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "expected sha256" in done.stderr
    assert str(Path("mlruns")) in done.stderr
