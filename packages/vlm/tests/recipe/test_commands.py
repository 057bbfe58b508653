"""The commands from parameters to a registered model, in a tracking database of their own."""

import json
import subprocess
import sys

import pytest
from kd_vlm import tracking
from kd_vlm.cli import app
from kd_vlm.journal import read_journal
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe


@pytest.fixture
def study(tmp_path, monkeypatch, world, vit_folder, lm_folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    (tmp_path / "params.yaml").write_text(f"""
vlm:
  data:
    pretrain: {{file: {world}/captions.json, images: {world}/images}}
    finetune: {{file: {world}/mix.json, images: {world}/images}}
    text: {world}/text.jsonl
  save_every: 2
  lms:
    lm-tiny: {{vocab_size: 400, phrases: 4, width: 32, layers: 2, heads: 2, kv_heads: 1, mlp_width: 48, context: 64,
              batch_size: 4, epochs: 1, lr: 1.0e-3, held_out: 4, repeat_share: 0.2}}
  recipes:
    tinyllava:
      pretrain: {{template: plain, batch_size: 4, epochs: 1, projector_lr: 1.0e-3}}
      finetune: {{template: qwen2_base, batch_size: 4, epochs: 1, projector_lr: 1.0e-3, language_model: trained,
                  language_model_lr: 1.0e-3}}
      held_out: 3
  cells:
    one: {{encoder: {vit_folder}, lm: models/lm-tiny, recipe: tinyllava, seed: 1}}
""")
    yield tmp_path
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()


def call(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_text_and_encoder_to_a_registered_vlm(study):
    call("lm", "--cell", "lm-tiny")
    call("run", "--cell", "one")
    folder = study / "models" / "one"
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    AutoProcessor.from_pretrained(folder, local_files_only=True)
    events = read_journal(folder / "journal.jsonl")
    metrics = {name: value for e in events if e["event"] == "metrics" for name, value in e["values"].items()}
    assert {"train/loss", "train/lr", "val/loss", "val/answer_accuracy", "val/blind_answer_accuracy"} <= set(metrics)
    assert events[0]["params"]["finetune.template"] == "qwen2_base"
    assert not list((study / "runs").iterdir()), "nothing of a finished run is left"
    for cell, name in (("one", "vlm-student-vit-none-alone--tiny--tinyllava"), ("lm-tiny", "lm-tiny")):
        assert name in call("register", study / "models" / cell, "--refs", study / "refs")
        ref = study / "refs" / f"{cell}.json"
        assert tracking.resolve(ref).sha256 == json.loads(ref.read_text())["sha256"]
    first = tracking.digest(folder)
    call("run", "--cell", "one")
    assert tracking.digest(folder) == first, "the same inputs give the same model"


def test_the_command_starts_without_heavy_imports():
    code = """
import sys
import kd_vlm.cli
print(sorted({"torch", "mlflow", "transformers", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
