"""The commands from parameters to a registered model, in a tracking database of their own."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from kd_vlm import run as run_module
from kd_vlm import tracking
from kd_vlm.cli import app
from kd_vlm.journal import Journal, read_journal, register
from kd_vlm.loading import load_vlm
from kd_vlm.lock import sole_writer
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


def test_from_text_and_encoder_to_a_registered_vlm(study, vit_folder):
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
    assert events[0]["params"]["data.bad"] == "error"
    assert not list((study / "runs").iterdir()), "nothing of a finished run is left"
    for cell, name in (("one", "vlm-student-vit-none-alone--tiny--tinyllava"), ("lm-tiny", "lm-tiny")):
        assert name in call("register", study / "models" / cell, "--refs", study / "refs")
        ref = study / "refs" / f"{cell}.json"
        assert tracking.resolve(ref).sha256 == json.loads(ref.read_text())["sha256"]
    call("export", folder, "--out", study / "export")
    exported = tracking.digest(study / "export")
    assert CliRunner().invoke(app, ["register", "export"]).exit_code == 2, "it has no journal that names it"
    assert "vlm-for-others" in call("register", "export", "--name", "vlm-for-others", "--refs", study / "refs")
    found = tracking.resolve("models:/vlm-for-others@candidate")
    assert (found.kind, found.sha256, exported) == ("vlm", tracking.digest(study / "export"), found.sha256)
    assert "vlm-for-others" in call("register", "export")
    assert CliRunner().invoke(app, ["register", str(study / "refs"), "--name", "vlm-x"]).exit_code == 2
    (model,) = [e for e in events if e["event"] == "model"]
    assert model["tags"]["kd.encoder_sha256"] == tracking.digest(vit_folder)
    first = tracking.digest(folder)
    call("run", "--cell", "one")
    assert tracking.digest(folder) == first, "the same inputs give the same model"


def stop_at(monkeypatch, number: int, step: int) -> None:
    """Send this process `number` at `step` of the next stage that begins."""
    whole = run_module.on_step

    def on_step(*arguments, **options):
        act = whole(*arguments, **options)

        def then(done):
            act(done)
            if done.number == step:
                os.kill(os.getpid(), number)

        return then

    monkeypatch.setattr(run_module, "on_step", on_step)


def assert_the_adapter_gives_the_merged_model(study, encoder, trained):
    """Encoder and language model put together anew, and what training kept apart added to them."""
    call("assemble", encoder, study / "models" / "lm-tiny", "--out", study / "base")
    call("export", study / "base", "--adapter", trained / "adapter" / "finetune", "--out", study / "merged")
    ours, theirs = (load_vlm(path).model.state_dict() for path in (study / "merged", trained))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_a_run_is_stopped_refuses_other_parameters_and_forks(study, vit_folder, monkeypatch):
    """143 with a checkpoint, 2 for changed parameters, 7 while another writes; LoRA, tables and MFU on the way."""
    with sole_writer(study / "models" / "lm-tiny"):
        assert CliRunner().invoke(app, ["lm", "--cell", "lm-tiny"]).exit_code == 7
    call("lm", "--cell", "lm-tiny")
    habits = ["--set", "validate_every=2", "--set", "sample_every=2", "--set", "samples=2", "--set", "peak_tflops=1"]
    lora = "recipes.tinyllava.finetune={template: qwen2_base, batch_size: 4, epochs: 2, projector_lr: 1.0e-3, "
    lora += "language_model: lora, language_model_lr: 1.0e-3, lora: {rank: 2, alpha: 4}}"
    ours = ["run", "--cell", "one", "--set", lora, *habits]
    with monkeypatch.context() as patch:
        stop_at(patch, signal.SIGTERM, 1)
        result = CliRunner().invoke(app, ours)
        assert (result.exit_code, "Stopped by SIGTERM after step 1" in result.output) == (143, True)
        stop_at(patch, signal.SIGUSR1, 2)
        result = CliRunner().invoke(app, [*ours, "--requeue"])
        assert (result.exit_code, "Stopped by SIGUSR1 after step 2" in result.output) == (75, True)
    changed = [*ours, "--set", "recipes.tinyllava.pretrain.projector_lr=2.0e-3"]
    result = CliRunner().invoke(app, changed)
    assert (result.exit_code, "pretrain.projector_lr: was 0.001, is 0.002" in result.output) == (2, True)
    with sole_writer(study / "models" / "one"):
        assert CliRunner().invoke(app, ours).exit_code == 7
    call(*changed, "--fork")
    folder = study / "models" / "one"
    assert type(AutoModelForImageTextToText.from_pretrained(folder)).__name__ == "LlavaForConditionalGeneration"
    assert_the_adapter_gives_the_merged_model(study, vit_folder, folder)
    events = read_journal(folder / "journal.jsonl")
    (model,) = [e for e in events if e["event"] == "model"]
    assert json.loads(model["tags"]["kd.changes"])[0]["changed"] == {"pretrain.projector_lr": [0.001, 0.002]}
    tables = {e["step"]: e["rows"] for e in events if e["event"] == "table"}
    assert sorted(tables) == [4, 6]  # two steps of pretraining come before
    assert [set(row) for row in tables[4]] == [{"id", "question", "answer", "prediction"}] * 2
    names = {name for e in events if e["event"] == "metrics" for name in e["values"]}
    assert {"train/tokens_per_second", "train/mfu", "train/data_seconds", "val/loss"} <= names
    call("register", folder)
    run = tracking.run_of(events[0])
    assert [a.path for a in tracking.client().list_artifacts(run, "samples")] == [
        f"samples/{step:08d}.json" for step in (4, 6)
    ]
    stands = tracking.digest(folder)
    call(*changed, "--fork")
    assert tracking.digest(folder) == stands
    assert read_journal(folder / "journal.jsonl") == events, "a finished folder of the same inputs is kept"
    call(*changed)
    (alone,) = [e for e in read_journal(folder / "journal.jsonl") if e["event"] == "model"]
    assert alone["tags"]["kd.inputs"] == model["tags"]["kd.inputs"]
    assert "kd.changes" not in alone["tags"], "a fork's model is not that of a run with these parameters alone"
    stands = tracking.digest(folder)
    call(*changed)
    assert tracking.digest(folder) == stands


def test_a_fork_to_a_schedule_that_is_over_already_is_refused_and_the_run_stays_what_it_was(study, monkeypatch):
    call("lm", "--cell", "lm-tiny")
    ours = ["run", "--cell", "one", "--set", "recipes.tinyllava.finetune.epochs=4"]
    for stage, epochs, done, end in (("pretrain", 0.5, 2, 1), ("finetune", 1, 6, 3)):
        with monkeypatch.context() as patch:
            stop_at(patch, signal.SIGTERM, done)
            assert CliRunner().invoke(app, ours).exit_code == 143
        shorter = [*ours, "--set", f"recipes.tinyllava.{stage}.epochs={epochs}", "--fork"]
        result = CliRunner().invoke(app, shorter)
        assert result.exit_code == 2
        assert f"has done {done} steps, the new schedule ends after {end}" in " ".join(result.output.split())
        assert not (study / "models" / "one").exists()
    call(*ours)
    (model,) = [e for e in read_journal(study / "models" / "one" / "journal.jsonl") if e["event"] == "model"]
    assert "kd.changes" not in model["tags"]


def test_every_registered_epoch_of_a_distillation_gets_a_vlm(study, encoders):
    """Figure 3 of the paper: one VLM per epoch."""
    call("lm", "--cell", "lm-tiny")
    for i, name in enumerate(
        ("student-vit--a--b-e4", "student-vit--a--b-e16", "student-vit--a--b", "student-vit--a--bc")
    ):
        folder = encoders.write(study / "students" / name, encoders.vit | {"layers": 2 + i})
        journal = Journal.open(folder / "journal.jsonl", experiment="distill", name=name, params={"seed": 0})
        journal.finish(kind="student", name=name, tags={})
        register(folder)
    sweep = ["sweep", "student-vit--a--b", "--lm", "models/lm-tiny", "--recipe", "tinyllava", "--refs", "refs"]
    names = ["student-vit--a--b-e4", "student-vit--a--b-e16", "student-vit--a--b"]
    assert [line.split()[0] for line in call(*sweep, "--dry-run").splitlines()] == names
    call(*sweep)
    vlms = [f"vlm-{name.replace('--', '-')}--tiny--tinyllava" for name in names]
    assert sorted(p.stem for p in (study / "refs").iterdir()) == sorted(vlms)
    assert tracking.resolve(study / "refs" / f"{vlms[0]}.json").name == vlms[0]
    result = CliRunner().invoke(app, ["sweep", "student-none", *sweep[2:]])
    assert (result.exit_code, "export_epochs" in result.output) == (2, True)


def test_the_command_starts_without_heavy_imports():
    code = """
import sys
import kd_vlm.cli
print(sorted({"torch", "mlflow", "transformers", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
