"""What can go wrong inside the loop: numbers that are not finite, signals, a damaged checkpoint."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from kd_distill import train as train_module
from kd_distill.checkpoint import Checkpoints
from kd_distill.signals import Stopped
from kd_distill.state import parameters_hash
from kd_distill.train import NonFiniteError, train

from packages.distill.tests.faults.life import STEPS, pairs_of, plan_of, state_of, task_of, write_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return pairs_of(write_pairs(tmp_path_factory.mktemp("pairs")))


class Run:
    """One training of a tiny student."""

    def __init__(self, pairs, folder, *, precision="fp32", **plan):
        self.task, self.pairs, self.done = task_of(precision), pairs, 0
        self.state = state_of(self.task, fp16=precision == "fp16")
        self.checkpoints, self.plan, self.logged = Checkpoints(folder), plan_of(**plan), []

    def __call__(self, progress=lambda done: None):
        def count(done):
            self.done = done
            progress(done)

        train(
            self.task,
            self.pairs,
            self.plan,
            weights=lambda step: {"task": 1.0},
            state=self.state,
            checkpoints=self.checkpoints,
            log=lambda step, values: self.logged.append((step, values)),
            progress=count,
        )
        return self


def die_at(step: int):
    def progress(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return progress


def poisoned(monkeypatch, at: int, *, loss: bool):
    """From step `at` on, the loss or one gradient is not a number."""
    whole, calls = train_module.loss_and_gradients, [0]

    def poison(task, batch, weights, **options):
        value, terms = whole(task, batch, weights, **options)
        calls[0] += 1
        if calls[0] > at:
            if loss:
                return value * math.nan, terms
            next(task.parameters()).grad.view(-1)[0] = math.inf
        return value, terms

    monkeypatch.setattr(train_module, "loss_and_gradients", poison)


@pytest.mark.parametrize("loss", [True, False])
def test_what_is_not_finite_stops_before_the_update_and_names_the_samples(pairs, tmp_path, monkeypatch, loss):
    clean = Run(pairs, tmp_path / "clean")
    with pytest.raises(KeyboardInterrupt):
        clean(die_at(5))
    poisoned(monkeypatch, 5, loss=loss)
    run = Run(pairs, tmp_path / "run")
    what = "loss" if loss else "gradient"
    with pytest.raises(NonFiniteError, match=rf"The {what} is not finite at step 5 \(rank 0: .*terms .*'task'.*keys 0"):
        run()
    assert parameters_hash(run.task) == parameters_hash(clean.task)
    assert run.checkpoints.newest().step == 4
    report = json.loads((tmp_path / "run" / "0-nonfinite.json").read_text())
    assert report["step"] == 5
    assert report["keys"] == list(pairs.keys)
    assert len(report["keys"]) == 8


def test_fp16_skips_updates_counts_them_and_gives_up_after_so_many_in_a_row(pairs, tmp_path, monkeypatch):
    poisoned(monkeypatch, 3, loss=False)
    run = Run(pairs, tmp_path, precision="fp16", patience=4)
    with pytest.raises(NonFiniteError, match="gradient is not finite at step 6"):
        run()
    assert (run.state.skipped, run.done) == (4, 6)
    assert run.logged[-1][1]["train/skipped_updates"] == 3
    assert run.logged[-1][1]["train/loss_scale"] == run.logged[2][1]["train/loss_scale"] / 8


def test_fp16_trains_as_fp32_does_to_its_precision(pairs, tmp_path):
    half, full = Run(pairs, tmp_path / "half", precision="fp16")(), Run(pairs, tmp_path / "full")()
    assert half.state.skipped == 0
    for (_, a), (_, b) in zip(half.logged[:6], full.logged[:6], strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=5e-3)  # 11 bits in the towers, few steps
        assert a["train/grad_norm"] == pytest.approx(b["train/grad_norm"], rel=0.1)


def test_an_fp16_run_resumes_with_its_scale(pairs, tmp_path):
    whole = Run(pairs, tmp_path / "whole", precision="fp16")()
    with pytest.raises(KeyboardInterrupt):
        Run(pairs, tmp_path / "run", precision="fp16")(die_at(7))
    run = Run(pairs, tmp_path / "run", precision="fp16")()
    assert parameters_hash(run.task) == parameters_hash(whole.task)
    assert run.state.scaler.state_dict() == whole.state.scaler.state_dict()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_goes_on_later_to_the_same_weights(pairs, tmp_path, number, code):
    whole = Run(pairs, tmp_path / "whole")()
    before = signal.getsignal(number)
    run = Run(pairs, tmp_path / "run", save_every_steps=None)
    with pytest.raises(Stopped, match="goes on from there") as stopped:
        run(lambda done: os.kill(os.getpid(), number) if done == 4 else None)
    assert stopped.value.exit_code == code
    assert run.checkpoints.steps() == [run.done] == [5]  # the step in which it came is finished
    assert signal.getsignal(number) == before
    assert parameters_hash(Run(pairs, tmp_path / "run")().task) == parameters_hash(whole.task)


def test_a_second_interrupt_ends_at_once_and_the_checkpoint_stands(pairs, tmp_path):
    run = Run(pairs, tmp_path)

    def twice(done):
        if done == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(twice)
    assert run.checkpoints.newest().step == 4


def test_a_checkpoint_is_due_by_the_clock(pairs, tmp_path):
    run = Run(pairs, tmp_path, save_every_steps=None, save_every_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(die_at(3))
    assert run.checkpoints.steps() == [1, 2]


def test_without_either_due_only_the_end_is_saved(pairs, tmp_path):
    assert Run(pairs, tmp_path, save_every_steps=None)().checkpoints.steps() == [STEPS]


def test_after_bit_rot_the_run_repeats_the_steps_it_lost(pairs, tmp_path):
    whole = Run(pairs, tmp_path / "whole")()
    with pytest.raises(KeyboardInterrupt):
        Run(pairs, tmp_path / "run")(die_at(9))
    file = tmp_path / "run" / "step-00000008" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    again = Run(pairs, tmp_path / "run")()
    assert again.logged[0][0] == 7
    assert parameters_hash(again.task) == parameters_hash(whole.task)


def test_all_that_the_optimiser_holds_is_in_the_checkpoint(pairs, tmp_path):
    run = Run(pairs, tmp_path)()
    tensors = run.checkpoints.newest().tensors
    names = {id(p): name for name, p in run.task.named_parameters()}
    held = [p for group in run.state.optimizer.param_groups for p in group["params"]]
    assert len(held) == len(names)
    for parameter in held:
        name = names[id(parameter)]
        assert torch.equal(tensors[f"task.{name}"], parameter)
        for moment, value in run.state.optimizer.state[parameter].items():
            assert torch.equal(tensors[f"optimizer.{moment}.{name}"], value)
    average = {k: v for k, v in tensors.items() if k.startswith("average.module.")}
    assert not torch.equal(average["average.module.visual.conv1.weight"], run.task.student.visual.conv1.weight)


def test_a_checkpoint_of_another_model_is_refused(pairs, tmp_path):
    Run(pairs, tmp_path)()
    other = Run(pairs, tmp_path)
    other.task.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=f"checkpoint of step {STEPS} is of another model"):
        other()


def test_the_callers_random_numbers_are_left_alone(pairs, tmp_path):
    before = torch.get_rng_state()
    Run(pairs, tmp_path)()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_export_happens_at_the_end_of_its_epoch_and_not_elsewhere(pairs, tmp_path):
    run, exported = Run(pairs, tmp_path), []
    run.plan = replace(run.plan, exports={6: 1, 18: 3})
    train(
        run.task,
        pairs,
        run.plan,
        weights=lambda step: {"task": 1.0},
        state=run.state,
        checkpoints=run.checkpoints,
        log=lambda step, values: None,
        progress=lambda done: exported.append(("step", done)),
        export=lambda epoch: exported.append(("epoch", epoch)),
    )
    assert exported[6] == ("epoch", 1)
    assert exported[19] == ("epoch", 3)
    assert len(exported) == STEPS + 2
