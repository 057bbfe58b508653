"""Where a model runs: a device that is not there is refused in words, not by torch."""

import json

import pytest
import torch
from kd_evalsuite.cli import app
from kd_evalsuite.config import EvalParams
from kd_evalsuite.finding import require_device
from typer.testing import CliRunner


def an_encoder(folder):
    """As much of one as is looked at before it is loaded."""
    folder.mkdir()
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": {"layers": 1}, "text_cfg": {"width": 8}}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "open_clip_model.safetensors").write_bytes(b"")
    return folder


def a_set(folder):
    """Two classes, one with an image."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
    (folder / "cat/a.png").write_bytes(b"x")
    (folder / "classnames.txt").write_text("cat\ndog\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    return folder


@pytest.mark.parametrize(
    ("device", "n", "said"),
    [
        ("cuda", 0, "Expected the device cuda, torch 2.9 finds no GPU. Use --device cpu."),
        ("cuda:2", 2, "Expected the device cuda:2, torch 2.9 finds cuda:0, cuda:1. Use one of these or"),
        ("mps", 0, "Expected the device mps, torch 2.9 finds none"),
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(
    benchmark_root, tmp_path, monkeypatch, device, n, said
):
    monkeypatch.setattr(torch, "__version__", "2.9")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    (tmp_path / "vlm").mkdir()
    (tmp_path / "vlm/config.json").write_text("{}")
    encoder, classes = an_encoder(tmp_path / "enc"), a_set(tmp_path / "classes")
    for arguments in (
        ["run", "--model", str(tmp_path / "vlm"), "--tasks", "mmvp", "--data", str(benchmark_root)],
        ["run", "--model", str(encoder), "--tasks", "zeroshot", "--data", str(classes)],
        ["zeroshot", "--model", str(encoder), "--data", str(classes)],
    ):
        done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--device", device])
        assert done.exit_code == 2, done.output
        assert said in " ".join(done.output.split())


def test_the_devices_that_are_there_are_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cpu", "cuda", "cuda:0", "cuda:1"):
        assert EvalParams(device=device).device == device
        require_device(device)
