"""A disk that is full: what stood there stands, the message names the file, the code is 6, and with room it goes on."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_distill import tracking
from kd_distill.building import build
from kd_distill.cache import CacheInfo, blocks
from kd_distill.checkpoint import Checkpoints, StorageError
from kd_distill.cli import app as distill
from kd_distill.exits import exit_code, message
from kd_distill.journal import Journal
from typer.testing import CliRunner

from .disks import small_disk

CACHE = CacheInfo(
    teacher={"schema": "kd-ref/1", "kind": "teacher", "name": "teacher-x", "sha256": "0" * 64},
    preprocessing={"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    tokenizer="clip:lower:77",
    precision="fp32",
    width=512,
    scale=100.0,
    bias=0.0,
    text=False,
    grid=None,
    patch_width=0,
    patch_layer=None,
    data_digest="d",
    pairs=4000,
    views=1,
    crop_area=0.9,
    crop_seed=0,
    rows=500,
)


def tree(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "ballast" and p.suffix != ".lock")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_checkpoint(tmp_path):
    with small_disk(tmp_path / "disk", 8) as disk:
        checkpoints = Checkpoints(disk.folder / "checkpoints")
        tensors = {"w": torch.arange(200_000, dtype=torch.float32)}
        checkpoints.save(1, tensors, {"step": 1})
        before = tree(disk.folder)
        disk.fill(leave=100_000)
        with pytest.raises(StorageError, match=r"step-00000002: no room") as error:
            checkpoints.save(2, tensors, {"step": 2})
        assert exit_code(error.value) == 6
        assert tree(disk.folder) == before
        assert checkpoints.newest().step == 1
        disk.make_room()
        checkpoints.save(2, tensors, {"step": 2})
        assert torch.equal(checkpoints.newest().tensors["w"], tensors["w"])


def test_a_cache_of_embeddings(tmp_path):
    asked = []

    def compute(block):
        asked.append(block.number)
        rows = np.arange(block.start, block.stop, dtype=np.float32)[:, None] % 7
        return {block.file("image"): np.broadcast_to(rows, (block.stop - block.start, CACHE.width))}

    build(tmp_path / "whole", CACHE, compute)
    whole, asked[:] = tree(tmp_path / "whole"), []
    with small_disk(tmp_path / "disk", 8) as disk:
        disk.fill(leave=2_000_000) if disk.mounted else disk.fill(leave=300_000)
        with pytest.raises(OSError, match=r"\.npy") as error:
            build(disk.folder / "cache", CACHE, compute)
        assert exit_code(error.value) == 6
        assert "make room and run the same command again" in message(error.value, 6)
        assert not (disk.folder / "cache").exists(), "half a cache is none"
        disk.make_room()
        assert build(disk.folder / "cache", CACHE, compute)
        assert len(asked) == len(list(blocks(CACHE))) + 1, "blocks that were written are not computed again"
        assert tree(disk.folder / "cache") == whole


def test_the_registry(tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", 12) as disk:
        project = disk.folder
        (project / ".dvc").mkdir()
        monkeypatch.chdir(project)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
        forget()
        trained = model(project / "models" / "student-a", b"first")
        assert CliRunner().invoke(distill, ["register", str(trained), "--refs", str(project / "refs")]).exit_code == 0
        other = model(project / "models" / "student-b", bytes(range(256)) * 8000)
        before = (project / "refs" / "student-a.json").read_bytes()
        disk.fill(leave=600_000)
        said = CliRunner().invoke(distill, ["register", str(other), "--refs", str(project / "refs")])
        assert said.exit_code == 6, said.output
        assert "make room and run the same command again" in said.output
        assert str(project) in said.output
        assert not (project / "refs" / "student-b.json").exists()
        assert (project / "refs" / "student-a.json").read_bytes() == before
        disk.make_room()
        forget()
        said = CliRunner().invoke(distill, ["register", str(other), "--refs", str(project / "refs")])
        assert said.exit_code == 0, said.output
        reference = json.loads((project / "refs" / "student-b.json").read_text())
        assert reference["sha256"] == tracking.digest(other) == tracking.resolve(reference).sha256
        assert len(tracking.client().search_model_versions("name = 'student-b'")) == 1
        forget()
    forget()


def forget() -> None:
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()


def model(folder: Path, weights: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "open_clip_model.safetensors").write_bytes(weights)
    journal = Journal.open(folder / "journal.jsonl", experiment="distill", name=folder.name, params={"lr": 1e-3})
    for event in (
        {"event": "model", "kind": "student", "name": folder.name, "tags": {"kd.arch": "vit"}},
        {"event": "end", "status": "FINISHED", "time": 9},
    ):
        journal._append(event)
    return folder


def test_control_a_disk_with_room_refuses_nothing(tmp_path):
    with small_disk(tmp_path / "disk", 8) as disk:
        (disk.folder / "file").write_bytes(b"0" * 1_000_000)
        disk.fill(leave=100_000)
        with pytest.raises(OSError, match=r"No space|too large"):
            (disk.folder / "file2").write_bytes(b"0" * 1_000_000)
        disk.make_room()
        (disk.folder / "file2").write_bytes(b"0" * 1_000_000)
