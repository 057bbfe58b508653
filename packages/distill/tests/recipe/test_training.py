"""One cell through the command: signals, locks, changed parameters, exports, options of the loop."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch
from kd_distill import models, tracking
from kd_distill.cli import app
from kd_distill.journal import read_journal, register
from kd_distill.lock import LockHeldError, sole_writer
from PIL import Image
from typer.testing import CliRunner

from .conftest import COLOURS
from .test_runs import STUDENT, TEACHER, section, train_one

pytestmark = pytest.mark.recipe
SHORT = ["--set", "recipes.pretrain.steps=12", "--set", "recipes.pretrain.save_every_steps=4"]


def run(*arguments: str, cell: str = TEACHER):
    return CliRunner().invoke(app, ["run", "--cell", cell, *SHORT, *arguments])


def weights(folder: Path) -> bytes:
    return (folder / models.WEIGHTS).read_bytes()


def values_of(folder: Path) -> dict[str, float]:
    """Of each metric, the last value in a model folder's journal."""
    return {k: v for event in read_journal(folder / "journal.jsonl") for k, v in event.get("values", {}).items()}


def stop_after_six(monkeypatch, *arguments: str):
    """Run one cell; SIGTERM comes in its sixth step."""
    from kd_distill import train

    whole, calls = train.loss_and_gradients, [0]

    def ask(*arguments, **options):
        calls[0] += 1
        if calls[0] == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*arguments, **options)

    monkeypatch.setattr(train, "loss_and_gradients", ask)
    result = run(*arguments)
    monkeypatch.setattr(train, "loss_and_gradients", whole)
    assert "Stopped by SIGTERM after step 6" in result.output
    return result


@pytest.fixture
def stopped(project, monkeypatch):
    """A run that SIGTERM stopped after its sixth step."""
    assert stop_after_six(monkeypatch).exit_code == 143
    return project


def test_a_stopped_run_goes_on_to_the_weights_of_one_that_was_not(stopped):
    assert run().exit_code == 0
    shutil.move("models", "first")
    assert run().exit_code == 0
    assert weights(Path("first") / TEACHER) == weights(Path("models") / TEACHER)
    assert not list(Path("runs").iterdir())


def test_with_requeue_a_stopped_run_asks_to_be_run_again(project, monkeypatch):
    assert stop_after_six(monkeypatch, "--requeue").exit_code == 75
    assert run("--requeue").exit_code == 0


def test_changed_parameters_are_refused_with_the_difference(stopped):
    result = run("--set", "recipes.pretrain.lr=0.001", "--set", "data.crop_area=0.8")
    assert result.exit_code == 2
    assert "recipe.lr: was 0.003, is 0.001" in result.output
    assert "views: was [2, 0.9], is [2, 0.8]" in result.output
    assert "--fork" in result.output


def test_parameters_without_effect_may_change(stopped):
    assert run("--set", "recipes.pretrain.keep=1", "--set", "recipes.pretrain.log_every=2").exit_code == 0


def test_a_longer_run_goes_on_and_says_so(stopped):
    assert run("--set", "recipes.pretrain.steps=16").exit_code == 0
    events = read_journal(Path("models") / TEACHER / "journal.jsonl")
    model = next(e for e in events if e["event"] == "model")
    assert json.loads(model["tags"]["kd.changes"]) == [{"step": 6, "changed": {"recipe.steps": [12, 16]}}]


def test_a_fork_is_a_run_of_its_own(stopped):
    before = read_journal(next(Path("runs").glob("*/journal.jsonl")))[0]["key"]
    assert run("--set", "recipes.pretrain.lr=0.001", "--fork").exit_code == 0
    start = read_journal(Path("models") / TEACHER / "journal.jsonl")[0]
    assert start["key"] != before
    assert json.loads(start["tags"]["kd.changes"])[0]["changed"] == {"recipe.lr": [0.003, 0.001]}


def test_all_checkpoints_damaged_is_exit_code_5(stopped):
    for file in Path("runs").glob("*/checkpoints/*/state.safetensors"):
        file.write_bytes(b"rot")
    result = run()
    assert result.exit_code == 5
    assert "were damaged" in result.output


def test_a_second_run_on_the_same_folder_is_refused_and_names_the_first(project):
    with sole_writer(Path("models") / TEACHER):
        begin = time.monotonic()
        result = run("--set", "recipes.pretrain.lr=0.001")
        assert time.monotonic() - begin < 5  # no waiting; the data has been looked at
    assert result.exit_code == 7
    assert f"being written by process {os.getpid()} on" in result.output
    assert run().exit_code == 0
    assert [p.name for p in Path("models").glob("[!.]*")] == [TEACHER]


@pytest.mark.parametrize("races", [2, pytest.param(20, marks=pytest.mark.faults)])
def test_of_eight_that_start_at_once_one_wins_and_a_killed_holder_frees_the_lock(tmp_path, races):
    def hold() -> None:
        try:
            with sole_writer(tmp_path / "model"):
                (tmp_path / f"won-{os.getpid()}").touch()
                time.sleep(60)
        except LockHeldError:
            os._exit(7)

    for _ in range(races):
        pids = []
        for _ in range(8):
            pid = os.fork()
            if not pid:
                hold()
            pids.append(pid)
        codes = {}
        while len(codes) < 7:
            pid, status = os.wait()
            codes[pid] = os.waitstatus_to_exitcode(status)
        assert set(codes.values()) == {7}
        (winner,) = set(pids) - set(codes)
        os.kill(winner, signal.SIGKILL)
        os.waitpid(winner, 0)
        with sole_writer(tmp_path / "model"):
            pass
    assert len(list(tmp_path.glob("won-*"))) == races


def test_a_loss_that_is_not_finite_is_exit_code_4_and_the_checkpoint_stands(project, monkeypatch):
    from kd_distill import train

    whole, calls = train.loss_and_gradients, [0]

    def poison(*arguments, **options):
        loss, terms = whole(*arguments, **options)
        calls[0] += 1
        return (loss * float("nan") if calls[0] == 7 else loss), terms

    monkeypatch.setattr(train, "loss_and_gradients", poison)
    result = run()
    assert result.exit_code == 4
    assert "not finite at step 6" in result.output
    assert [p.name for p in sorted(Path("runs").glob("*/checkpoints/step-*"))] == ["step-00000004"]
    monkeypatch.setattr(train, "loss_and_gradients", whole)
    assert run().exit_code == 0


@pytest.mark.faults
def test_a_disk_that_fills_up_is_exit_code_6_and_the_last_checkpoint_stands(project):
    """A limit on file size, set once the first checkpoint stands, in a process of its own."""
    program = """
import resource, sys
from kd_distill import checkpoint
from kd_distill.cli import app
whole = checkpoint.Checkpoints.save
def save(self, step, tensors, values):
    if self.steps():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    return whole(self, step, tensors, values)
checkpoint.Checkpoints.save = save
app()
"""
    command = [sys.executable, "-c", program, "run", "--cell", TEACHER, *SHORT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 6, done.stderr
    assert "no room for a checkpoint of" in done.stderr
    assert [p.name for p in Path("runs").glob("*/checkpoints/*")] == ["step-00000004"]
    assert run().exit_code == 0


@pytest.mark.faults
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_itself_answers_to_signals(project, number, code):
    command = [sys.executable, "-m", "kd_distill", "run", "--cell", TEACHER, "--set", "recipes.pretrain.steps=100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not list(Path("runs").glob("*/journal.jsonl")) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    begin = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert time.monotonic() - begin < 20  # torchrun kills after 30
    assert "Stopped by" in errors
    assert len(list(Path("runs").glob("*/checkpoints/step-*"))) == 1


def test_the_encoder_of_each_epoch_asked_for_is_a_model_of_the_same_run(project):
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    assert run("--set", "recipes.pretrain.export_epochs=[1, 2]").exit_code == 0
    names = [f"{TEACHER}-e1", f"{TEACHER}-e2", TEACHER]
    folders = [Path("models") / name for name in names]
    for folder in folders:
        register(folder)
    runs = tracking.client().search_runs([tracking._experiment("distill")])
    assert len(runs) == 1
    versions = [tracking.client().get_model_version_by_alias(name, "candidate") for name in names]
    assert {version.run_id for version in versions} == {runs[0].info.run_id}
    assert [version.tags.get("kd.epoch") for version in versions] == ["1", "2", None]
    assert tracking.resolve(f"models:/{TEACHER}-e1").sha256 == versions[0].tags["sha256"]
    assert weights(folders[0]) != weights(folders[1])
    assert weights(folders[1]) == weights(folders[2])  # 12 steps are two epochs


def test_the_export_of_a_longer_schedule_is_the_run_that_stops_there_without_cooldown(project):
    assert run("--set", "recipes.pretrain.export_epochs=[1]").exit_code == 0
    shutil.move("models", "long")
    assert run("--set", "recipes.pretrain.steps=6", "--set", "recipes.pretrain.horizon=12").exit_code == 0
    assert weights(Path("long") / f"{TEACHER}-e1") == weights(Path("models") / TEACHER)


def write_classes(folder: Path) -> None:
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(COLOURS) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} picture\n")
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for i, colour in enumerate(COLOURS.values()):
            picture = io.BytesIO()
            Image.new("RGB", (20, 20), colour).save(picture, "PNG")
            for suffix, content in (("png", picture.getvalue()), ("cls", f"{i}".encode())):
                member = tarfile.TarInfo(f"s{i}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_monitors_follow_zero_shot_the_teacher_and_the_heads(project):
    from kd_distill.run import make_cache

    write_classes(project / "classes")
    text = (project / "params.yaml").read_text()
    text = text.replace("caches: caches", "caches: caches, classes: classes").replace(
        "steps: 12,", "steps: 12, monitor_every: 5,"
    )
    (project / "params.yaml").write_text(text.replace("steps: 40,", "steps: 40, monitor_every: 10,"))
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    teacher = register(train_one(project, TEACHER))
    assert values_of(project / "models" / TEACHER)["monitor/zeroshot_top1"] >= 0.75
    make_cache(section(project).data, teacher, lambda what, done, of: None)
    folder = train_one(project, STUDENT)
    steps = {e["step"] for e in read_journal(folder / "journal.jsonl") if "monitor/cka" in e.get("values", {})}
    assert steps == {5, 10, 12}
    last = values_of(folder)
    assert 0 < last["monitor/cosine"] <= 1
    assert last["monitor/cka"] <= 1
    assert last["monitor/norm/heads.teacher-wide.image.weight"] > 0
    assert 0 <= last["monitor/zeroshot_top1"] <= 1


def test_the_moving_average_is_what_is_written(project):
    assert run("--set", "recipes.pretrain.ema=0.5").exit_code == 0
    shutil.move("models", "ema")
    assert run().exit_code == 0
    raw, average = (models.load(Path(f) / TEACHER)[0].visual.conv1.weight for f in ("models", "ema"))
    assert not torch.equal(raw, average)
    torch.testing.assert_close(raw, average, atol=0.05, rtol=0)


def test_monitoring_and_saving_leave_the_result_as_it_is(project):
    assert run("--set", "recipes.pretrain.monitor_every=3").exit_code == 0
    shutil.move("models", "watched")
    assert run("--set", "recipes.pretrain.save_every_steps=1").exit_code == 0
    assert weights(Path("watched") / TEACHER) == weights(Path("models") / TEACHER)


def test_epochs_and_the_global_batch_are_recorded(project):
    assert run("--set", "recipes.pretrain.steps=null", "--set", "recipes.pretrain.epochs=2").exit_code == 0
    params = read_journal(Path("models") / TEACHER / "journal.jsonl")[0]["params"]
    expected = {"steps": "12", "epochs": "2", "batch_size": "8", "batch_size_per_rank": "8", "ranks": "1"}
    assert expected.items() <= params.items()
    assert (params["samples"], params["steps_per_epoch"]) == ("96", "6")


@pytest.mark.faults
def test_a_compiled_run_has_the_weights_names_and_losses_of_an_eager_one(project):
    assert run("--set", "recipes.pretrain.compile=true", "--set", "recipes.pretrain.channels_last=true").exit_code == 0
    shutil.move("models", "compiled")
    assert run().exit_code == 0
    compiled, eager = (values_of(Path(f) / TEACHER)["train/loss"] for f in ("compiled", "models"))
    assert compiled == pytest.approx(eager, rel=1e-2)  # another order of sums, twelve updates
    models.load(Path("compiled") / TEACHER)
