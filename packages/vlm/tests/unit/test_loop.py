import pytest
import torch
from kd_vlm.checkpoint import Checkpoints
from kd_vlm.loop import fit
from kd_vlm.optim import Group, NonFiniteError, learning_rate_scale
from torch.nn import Parameter

OPTIONS = {"save_every": 2, "warmup_share": 0.2, "weight_decay": 0.1, "clip": 1.0, "beta2": 0.99}
PLAN = [[i] for i in range(10)]


def model():
    generator = torch.Generator().manual_seed(0)
    return {"w": Parameter(torch.randn(3, 4, generator=generator)), "b": Parameter(torch.zeros(4))}


def loss_of(parameters):
    return lambda batch: ((parameters["w"] * (batch[0] + 1)).sin() + parameters["b"]).square().mean()


class KilledError(Exception):
    pass


def run(parameters, path, kill_at=None):
    steps = []

    def on_step(step):
        steps.append(step)
        if step.number == kill_at:
            raise KilledError

    fit([Group(parameters, 0.1)], PLAN, loss_of(parameters), checkpoint=path, on_step=on_step, **OPTIONS)
    return steps


@pytest.mark.parametrize("kill_at", [1, 2, 5, 10])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, kill_at):
    whole, broken = model(), model()
    run(whole, tmp_path / "whole")
    path = tmp_path / "broken"
    with pytest.raises(KilledError):
        run(broken, path, kill_at)
    assert (Checkpoints(path).newest() or 0) == (kill_at - 1) // 2 * 2  # the kill is before the step's checkpoint
    again = model()
    run(again, path)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path):
    first, second = model(), model()
    run(first, tmp_path / "x")
    assert run(second, tmp_path / "x") == []
    assert all(torch.equal(second[name], first[name]) for name in first)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    run(model(), tmp_path / "x")
    with pytest.raises(ValueError, match="another model"):
        run({"w": model()["w"], "c": model()["b"]} | {"b": model()["b"]}, tmp_path / "x")


def test_a_loss_that_is_no_number_stops_before_the_update(tmp_path):
    parameters = model()
    before = parameters["w"].detach().clone()
    with pytest.raises(NonFiniteError, match="Step 1"):
        fit(
            [Group(parameters, 0.1)],
            PLAN,
            lambda batch: parameters["w"].sum() * float("nan"),
            checkpoint=tmp_path / "x",
            on_step=lambda step: None,
            **OPTIONS,
        )
    assert torch.equal(parameters["w"], before)


def test_the_learning_rate_rises_linearly_and_falls_to_nothing():
    scales = [learning_rate_scale(step, 100, 10) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[9] == 1.0
    assert max(scales) == 1.0
    assert scales[10:] == sorted(scales[10:], reverse=True)
    assert 0 < scales[99] < 1e-3
