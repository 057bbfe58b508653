"""One cell through the command: signals, locks, changed parameters, exports, options of the loop."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kd_distill import models
from kd_distill.cli import app
from kd_distill.journal import read_journal
from kd_distill.lock import LockHeldError, sole_writer
from typer.testing import CliRunner

from packages.distill.tests.recipe.test_runs import TEACHER

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
