"""SIGKILL at random moments of a stage: the run ends as if nothing had happened, loss by loss, to the last bit."""

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from kd_vlm.checkpoint import Checkpoints
from kd_vlm.lora import add_lora

from packages.vlm.tests.faults.tiny import STAGE, build, fit, write_inputs

STAGES = {
    "pretrain": {"language_model": "frozen", "language_model_lr": None, "epochs": 8},
    "finetune": {"language_model": "trained", "epochs": 5},
    "lora": {"language_model": "lora", "epochs": 5, "micro_batch_size": 2},
}
CORPUS = {"pretrain": "pretrain", "finetune": "finetune", "lora": "finetune"}


class Life:
    """One stage in a folder; each life of it is a fork."""

    def __init__(self, folder: Path, stage: str, inputs: Path) -> None:
        self.folder, self.stage, self.inputs = folder, stage, inputs
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints")

    def live(self) -> None:
        vlm, corpora, features = build(self.inputs)
        options = STAGE | STAGES[self.stage]
        if self.stage == "lora":
            add_lora(vlm.model, rank=4, alpha=8, dropout=0.2, seed=0)
        with (self.folder / "trace").open("a") as trace:

            def on_step(step) -> None:
                trace.write(json.dumps([step.number, step.loss.hex()]) + "\n")
                trace.flush()

            where = {"checkpoint": self.checkpoints.folder, "on_step": on_step}
            fit(vlm, corpora[CORPUS[self.stage]], features, options, **where)
        total = hashlib.sha256()
        for name, value in sorted(vlm.model.state_dict().items()):
            total.update(name.encode() + value.contiguous().numpy().tobytes())
        (self.folder / "hash").write_text(total.hexdigest())

    def trace(self) -> list[list]:
        lines = (self.folder / "trace").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("]")]


def forked(work) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def killed(pid: int, seconds: float) -> bool:
    """Kill a fork after `seconds`; False where it had ended before, successfully."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, "the life failed by itself"
            return False
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.fixture
def inputs(tmp_path, vit_folder, lm_folder, world):
    write_inputs(tmp_path / "inputs.json", encoder=vit_folder, lm=lm_folder, world=world)
    return tmp_path / "inputs.json"


def kill_stage(stage: str, inputs: Path, tmp_path: Path, kills: int, seed: int) -> None:
    whole = Life(tmp_path / "whole", stage, inputs)
    assert not killed(forked(whole.live), 120)
    timed = Life(tmp_path / "timed", stage, inputs)
    begin = time.monotonic()
    assert not killed(forked(timed.live), 120)
    seconds = time.monotonic() - begin
    expected, draw, total, run = dict(whole.trace()), random.Random(seed), 0, 0
    while total < kills:
        life, deaths = Life(tmp_path / f"{run}", stage, inputs), 0
        while total < kills and deaths < 8 and killed(forked(life.live), draw.uniform(0, 1.2 * seconds)):
            total, deaths = total + 1, deaths + 1
        if not (life.folder / "hash").exists():
            assert not killed(forked(life.live), 120)
        assert (life.folder / "hash").read_text() == (whole.folder / "hash").read_text()
        assert {number for number, _ in life.trace()} == set(expected)
        assert all(loss == expected[number] for number, loss in life.trace())
        assert not list(life.checkpoints.folder.glob(".part-*")), "what a kill left half written is gone"
        run += 1


def test_three_kills_change_nothing(inputs, tmp_path):
    kill_stage("lora", inputs, tmp_path, 3, seed=1)


@pytest.mark.faults
@pytest.mark.parametrize("stage", list(STAGES))
def test_fifty_kills_of_a_stage_change_nothing(stage, inputs, tmp_path):
    kill_stage(stage, inputs, tmp_path, 50, seed=2)
