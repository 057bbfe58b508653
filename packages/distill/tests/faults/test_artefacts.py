"""Artefacts from elsewhere: nothing in them runs, and what does not fit is refused before it is used."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_distill import models, tracking
from kd_distill.cache import TeacherCache
from kd_distill.checkpoint import MANIFEST, STATE, Checkpoints
from kd_distill.tracking import IntegrityError
from safetensors.torch import load_file, save_file

from packages.distill.tests.faults.life import ARCHITECTURE


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    models.save(folder, models.build(ARCHITECTURE, 0), ARCHITECTURE)
    return folder


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Payload(mark))


def test_the_payload_is_one(tmp_path):
    """The control: unpickled, it does run."""
    pickle.loads(pickled(tmp_path / "mark"))  # noqa: S301
    assert (tmp_path / "mark").exists()


def test_pickled_weights_under_the_name_of_ours_are_refused_and_do_not_run(model, tmp_path):
    (model / models.WEIGHTS).write_bytes(pickled(tmp_path / "mark"))
    with pytest.raises(Exception, match=r"(?i)header|safetensor"):
        models.load(model)
    torch.save({"x": Payload(tmp_path / "mark")}, model / models.WEIGHTS)
    with pytest.raises(Exception, match=r"(?i)header|safetensor"):
        models.load(model)
    assert not (tmp_path / "mark").exists()


def test_a_pickled_checkpoint_with_a_right_manifest_is_damaged_and_does_not_run(tmp_path):
    import hashlib

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    place = checkpoints.save(1, {"x": torch.zeros(2)}, {})
    data = pickled(tmp_path / "mark")
    (place / STATE).write_bytes(data)
    manifest = json.loads((place / MANIFEST).read_text())
    manifest["files"][STATE] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (place / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError):
        checkpoints.newest()
    assert not (tmp_path / "mark").exists()


def test_pickled_embeddings_are_refused_and_do_not_run(tmp_path):
    array = np.empty(1, object)
    array[0] = Payload(tmp_path / "mark")
    np.save(tmp_path / "image.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"pickle|[Oo]bject"):
        np.load(tmp_path / "image.npy", mmap_mode="r", allow_pickle=False)
    description = {"schema": "kd-cache/1", "teacher": {}, "data_digest": "", "seed": 0, "views": 1, "crop_area": 1.0}
    (tmp_path / "cache.json").write_text(json.dumps(description | {"pairs": 1, "width": 1, "scale": 1.0}))
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever says so first
        TeacherCache(tmp_path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_the_architecture_are_refused(model, change):
    weights = load_file(model / models.WEIGHTS)
    if change == "missing":
        del weights["visual.proj"]
    elif change == "unexpected":
        weights["visual.extra"] = torch.zeros(1)
    else:
        weights["visual.proj"] = torch.zeros(2, 2)
    save_file(weights, model / models.WEIGHTS)
    with pytest.raises(Exception, match=r"visual\.(proj|extra)"):
        models.load(model)


def test_a_reference_whose_model_is_not_registered_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracking.client.cache_clear()
    ref = {"schema": "kd-ref/1", "kind": "teacher", "name": "teacher-a", "sha256": "d" * 64}
    with pytest.raises(FileNotFoundError, match="no version of teacher-a with sha256 dddddddddddd; register it"):
        tracking.resolve(ref)
    with pytest.raises(FileNotFoundError, match="has no models:/teacher-a@champion"):
        tracking.resolve("models:/teacher-a@champion")
    tracking.client.cache_clear()


def test_a_model_that_changed_after_its_registration_names_both_digests(model, tmp_path, monkeypatch):
    from kd_distill.journal import Journal, register

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    journal = Journal.open(model / "journal.jsonl", experiment="distill", name="teacher-a", params={})
    journal.metrics(1, {"train/loss": 1.0})
    journal.finish(kind="teacher", name="teacher-a", tags={})
    registered = register(model)
    place = tracking.resolve("models:/teacher-a").path
    other = tmp_path / "other"
    shutil.copytree(place, other)
    save_file({"x": torch.zeros(1)}, place / models.WEIGHTS)
    with pytest.raises(IntegrityError, match=rf"expected sha256 {registered.sha256}, found [0-9a-f]{{64}}"):
        tracking.resolve("models:/teacher-a")
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
