"""What is said where processes cannot train together as asked."""

import pytest
import torch
from kd_vlm import zero
from kd_vlm.distributed import Ranks, joined
from kd_vlm.plan import n_steps, share_of
from kd_vlm.zero import configuration, require_deepspeed


def test_one_process_alone_needs_no_group():
    with joined(deepspeed=True) as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
    alone = Ranks()
    assert (alone.sum(2.5), alone.any(True), alone.any(False), alone.agreed(7)) == (2.5, True, False, 7)


def test_accelerate_launch_that_started_one_process_is_not_taken_for_two(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with pytest.raises(ValueError, match="torchrun"), joined(deepspeed=True):
        pass
    with joined() as ranks:
        assert ranks.world == 1


def test_without_deepspeed_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'kd-vlm\[deepspeed\]'"):
        require_deepspeed()


@pytest.mark.parametrize(("clip", "written"), [(None, 0.0), (1.0, 1.0), (0.5, 0.5)])
@pytest.mark.parametrize("stage", [2, 3])
def test_clipping_is_always_written_out_and_nothing_is_left_to_auto(stage, clip, written):
    made = configuration(stage, precision="bf16", clip=clip, micro_batch_size=8, accumulation=4, ranks=4)
    assert made["gradient_clipping"] == written
    assert made["train_batch_size"] == 128
    assert made["bf16"] == {"enabled": True, "check_grad_overflow": True}
    assert "auto" not in str(made)


def test_ranks_share_each_step_and_count_its_tokens_alike():
    plan = [[0, 1], [2], [3], [4, 5], [6], [7]]  # two ranks, two micro-batches a step; the last step has one
    supervised, lengths = list(range(1, 9)), [10] * 8
    shares = [
        share_of(plan, rank=rank, ranks=2, accumulation=2, supervised=supervised, lengths=lengths) for rank in (0, 1)
    ]
    assert n_steps(plan, 2, 2) == 2
    assert [m.samples for m in shares[0]] == [(0, 1), (3,), (6,)]
    assert [m.samples for m in shares[1]] == [(2,), (4, 5), (7,)]
    for share in shares:
        assert [(m.step, m.place, m.accumulation) for m in share] == [(0, 0, 2), (0, 1, 2), (1, 0, 1)]
        assert [m.step_supervised for m in share] == [21, 21, 15]
        assert [m.step_tokens for m in share] == [60, 60, 20]


def test_sums_of_one_rank_keep_what_is_no_number():
    assert torch.tensor(Ranks().sum(float("nan"))).isnan()
