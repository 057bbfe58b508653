"""What is asked for by mistake, and plausible, of the commands about whole VLMs: refused with exit code 2, in words."""

import shutil

import pytest
import torch
from kd_vlm.assembly import assemble, save_vlm
from kd_vlm.cli import app
from kd_vlm.encoder import load_encoder
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe


@pytest.fixture
def trained(vit_folder, lm_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    save_vlm(assemble(load_encoder(vit_folder), lm_folder, torch.Generator().manual_seed(0)), folder)
    return folder


@pytest.mark.parametrize(("device", "says"), [("gpu", "got 'gpu'"), ("cuda:99", "got 'cuda:99'")])
def test_a_device_that_is_not_here_is_refused_in_words(trained, device, says):
    result = CliRunner().invoke(app, ["chat", "--model", str(trained), "--prompt", "x", "--device", device])
    assert (result.exit_code, says in result.output) == (2, True), result.output


@pytest.mark.parametrize("form", ["stock", "legacy"])
def test_a_language_model_is_no_vlm_to_export(lm_folder, tmp_path, form):
    result = CliRunner().invoke(app, ["export", str(lm_folder), "--out", str(tmp_path / "out"), "--form", form])
    assert (result.exit_code, "vision_config" in result.output) == (2, True), result.output
    assert "should be a stock VLM's" in result.output
    assert not list(tmp_path.iterdir())


def test_a_language_model_of_pickles_is_refused_and_its_pickle_named(vit_folder, lm_folder, tmp_path):
    shutil.copytree(lm_folder, tmp_path / "lm")
    (tmp_path / "lm" / "model.safetensors").rename(tmp_path / "lm" / "pytorch_model.bin")
    arguments = ["assemble", str(vit_folder), str(tmp_path / "lm"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, "pytorch_model.bin is a pickle" in result.output) == (2, True), result.output
    result = CliRunner().invoke(app, ["assemble", str(vit_folder), str(vit_folder), "--out", str(tmp_path / "out")])
    assert (result.exit_code, "Expected a language model" in result.output) == (2, True), result.output


def test_a_language_model_is_no_vlm_to_talk_with(lm_folder):
    result = CliRunner().invoke(app, ["chat", "--model", str(lm_folder), "--prompt", "x"])
    assert result.exit_code == 2, result.output
