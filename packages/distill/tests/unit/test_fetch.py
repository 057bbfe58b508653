import json
import socket

import pytest
import torch
from kd_distill import models
from kd_distill.cli import app
from kd_distill.doctor import examine
from kd_distill.fetch import PICKLED, assemble, fetch, snapshot
from kd_distill.teachers import TEACHERS
from kd_distill.text import TOKENIZER_FILES
from kd_distill.tracking import JOURNAL, digest
from typer.testing import CliRunner

from packages.distill.tests.unit import tiny


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "store"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")


def _hub_folder(folder, teacher, **change):
    """What a publisher's folder holds, in an older form: less is stated, weights are pickled, the scale has one row."""
    folder.mkdir()
    model = models.build(teacher.config, seed=0)
    weights = dict(model.state_dict()) | {"logit_scale": model.logit_scale.detach().reshape(1)}
    torch.save({"state_dict": weights}, folder / PICKLED)
    view = {"mean": teacher.preprocessing.mean, "resize_mode": teacher.preprocessing.resize_mode}
    (folder / models.CONFIG).write_text(
        json.dumps({"model_cfg": dict(teacher.config) | change, "preprocess_cfg": view})
    )
    return model


@pytest.mark.parametrize("name", TEACHERS)
def test_nothing_is_fetched_unless_asked(name, tmp_path, no_network):
    with pytest.raises(FileNotFoundError, match="--download asks the hub"):
        fetch(TEACHERS[name], tmp_path, download=False)
    assert not (tmp_path / TEACHERS[name].registered).exists()


def test_asked_for_and_unreachable_is_an_error_that_says_so(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def offline(hub, **options):
        asked.append((hub, options["local_files_only"]))
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match="cannot be reached"):
        snapshot("someone/something", download=True)
    assert asked == [("someone/something", False)]


def test_pickled_weights_are_asked_for_only_where_there_are_no_others(monkeypatch, tmp_path):
    patterns = []

    def here(hub, *, allow_patterns, **_):
        patterns.append(PICKLED in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", here)
    snapshot("someone/something", download=False)
    (tmp_path / models.WEIGHTS).touch()
    snapshot("someone/something", download=False)
    assert patterns == [False, True, False]


def test_a_hub_folder_becomes_a_model_folder_that_the_doctor_passes(tmp_path, no_network):
    teacher = tiny.clip()
    original = _hub_folder(tmp_path / "hub", teacher)
    folder = fetch(teacher, tmp_path / "out", download=False, source=tmp_path / "hub")
    assert {f.name for f in folder.iterdir()} == {models.CONFIG, models.WEIGHTS, JOURNAL}
    assert all(check.ok for check in examine(folder, teacher))
    model, config, view = models.load(folder)
    assert (config, view) == (teacher.config, teacher.preprocessing)
    assert torch.equal(model.visual.conv1.weight, original.visual.conv1.weight)
    before = digest(folder)
    assert fetch(teacher, tmp_path / "out", download=False) == folder  # kept, nothing asked for
    assert digest(folder) == before


def test_a_teacher_with_a_tokenizer_brings_it(tmp_path, no_network):
    (tmp_path / "files").mkdir()
    teacher = tiny.siglip(tiny.siglip_tokenizer(tmp_path / "files"))
    _hub_folder(tmp_path / "hub", teacher)
    for name in TOKENIZER_FILES:
        (tmp_path / "files" / name).rename(tmp_path / "hub" / name)
    folder = fetch(teacher, tmp_path / "out", download=False, source=tmp_path / "hub")
    config, _ = models.read_config(folder)
    assert models.Tokenize(config, folder)(["a photo"]).shape == (1, 24)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"quick_gelu": False}, "quick_gelu: expected True, got False"),
        ({"vision_cfg": {"image_size": 32, "layers": 2, "width": 32}}, "layers: expected 3, got 2"),
        ({"embed_dim": 512}, "embed_dim"),
    ],
)
def test_a_hub_folder_that_says_other_than_the_table_is_refused(tmp_path, change, match):
    teacher = tiny.clip()
    _hub_folder(tmp_path / "hub", teacher, **change)
    with pytest.raises(ValueError, match=match):
        assemble(tmp_path / "hub", teacher)


def test_silence_on_quickgelu_means_gelu_and_is_refused(tmp_path):
    teacher = tiny.clip()
    _hub_folder(tmp_path / "hub", teacher)
    file = tmp_path / "hub" / models.CONFIG
    whole = json.loads(file.read_text())
    del whole["model_cfg"]["quick_gelu"]
    file.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="quick_gelu"):
        assemble(tmp_path / "hub", teacher)


def test_pickled_code_is_not_run(tmp_path):
    teacher = tiny.clip()
    _hub_folder(tmp_path / "hub", teacher)

    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"logit_scale": Touch()}, tmp_path / "hub" / PICKLED)
    with pytest.raises(ValueError, match="weights only"):
        assemble(tmp_path / "hub", teacher)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_weights_is_named(tmp_path):
    teacher = tiny.clip()
    _hub_folder(tmp_path / "hub", teacher)
    (tmp_path / "hub" / PICKLED).unlink()
    with pytest.raises(FileNotFoundError, match="found neither"):
        assemble(tmp_path / "hub", teacher)


def test_the_command_refuses_unknown_names_and_one_source_for_two():
    run = CliRunner().invoke
    assert run(app, ["fetch", "clip-b32"]).exit_code == 2
    assert run(app, ["fetch", "clip-b16", "clip-l14", "--from", "x"]).exit_code == 2
    assert "siglip-so400m-384" in run(app, ["teachers"], env={"COLUMNS": "200"}).stdout
