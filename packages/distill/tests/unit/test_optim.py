import math

import pytest
import torch
from kd_distill.optim import Schedule, average_of, build_optimizer
from torch import nn


def test_the_rate_rises_linearly_then_falls_as_a_cosine_to_zero():
    rate = Schedule(peak=2.0, warmup=4, steps=14)
    assert [rate(s) for s in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert rate(4) == 2.0
    assert rate(9) == pytest.approx(1.0)
    assert rate(14) == pytest.approx(0.0)


def test_a_run_of_a_longer_schedule_equals_it_up_to_the_cooldown():
    whole = Schedule(peak=1.0, warmup=5, steps=96)
    part = Schedule(peak=1.0, warmup=5, steps=32, horizon=96, cooldown=8)
    assert [part(s) for s in range(25)] == [whole(s) for s in range(25)]
    assert part(28) == pytest.approx(whole(24) / 2)
    assert part(31) == pytest.approx(whole(24) / 8)
    assert part(32) == 0


def test_matrices_decay_and_vectors_and_scalars_do_not():
    module = nn.ModuleDict({"linear": nn.Linear(3, 2), "norm": nn.LayerNorm(2)})
    module.scale = nn.Parameter(torch.tensor(1.0))
    module.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    decayed, spared = build_optimizer(module, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 3)]
    assert decayed["weight_decay"] == 0.1
    assert sorted(tuple(p.shape) for p in spared["params"]) == [(), (2,), (2,), (2,)]
    assert (spared["weight_decay"], spared["eps"], spared["betas"]) == (0.0, 1e-6, (0.9, 0.98))


def test_the_average_is_the_exponential_one():
    model = nn.Linear(1, 1, bias=False)
    average, expected = average_of(model, 0.9), None
    for value in (1.0, 5.0, -2.0):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    assert math.isclose(average.module.weight.item(), expected, rel_tol=1e-6)  # float32
    assert average_of(model, None) is None
