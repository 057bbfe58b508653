"""Which pairs of a super-batch are trained on."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kd_distill.active import Selection, added_loss, learnability, pair_losses, select
from kd_distill.views import stream

N, WIDTH = 48, 16
SCALE = 20.0


def unit(rng, *shape):
    return F.normalize(torch.from_numpy(rng.standard_normal(shape)), dim=-1)


@pytest.fixture
def logits(rng):
    """Of a student and a teacher. Pairs 0 to 15 the teacher alone knows, 16 to 31 both know, 32 to 47 are noise."""
    image, text = unit(rng, N, WIDTH), unit(rng, N, WIDTH)
    teacher_text, student_text = text.clone(), text.clone()
    teacher_text[:32] = image[:32]
    student_text[16:32] = image[16:32]
    return SCALE * image @ student_text.T, SCALE * image @ teacher_text.T


def infonce(logits: torch.Tensor, chosen: list[int]) -> float:
    """Summed over the chosen pairs, both directions, by loops in float64."""
    total = 0.0
    for i in chosen:
        row = math.log(sum(math.exp(logits[i, j]) for j in chosen)) - float(logits[i, i])
        column = math.log(sum(math.exp(logits[j, i]) for j in chosen)) - float(logits[i, i])
        total += (row + column) / 2
    return total


def test_losses_of_pairs_are_those_of_the_contrastive_loss(logits):
    labels = torch.arange(N)
    mean = (F.cross_entropy(logits[0], labels) + F.cross_entropy(logits[0].T, labels)) / 2
    torch.testing.assert_close(pair_losses(logits[0]).mean(), mean)
    assert pair_losses(logits[0]).sum().item() == pytest.approx(infonce(logits[0], list(range(N))), rel=1e-12)


def test_the_loss_that_a_pair_adds_is_the_difference_of_the_losses_with_and_without_it(logits):
    chosen = [3, 40, 17, 22]
    added = added_loss(logits[0], torch.tensor(chosen))
    for i in (0, 18, 47):
        expected = infonce(logits[0], [*chosen, i]) - infonce(logits[0], chosen)
        assert added[i].item() == pytest.approx(expected, rel=1e-10)


def test_learnability_is_zero_where_student_and_teacher_agree(logits):
    assert torch.equal(learnability(logits[1], logits[1]), torch.zeros(N, dtype=torch.float64))


def test_the_top_scores_are_the_pairs_that_the_teacher_knows_and_the_student_does_not(logits):
    chosen = select(*logits, 16, method="topk", chunks=1, generator=stream(0, "test"))
    assert chosen.tolist() == list(range(16))


@pytest.mark.parametrize("chunks", [1, 4, 16])
def test_joint_selection_prefers_the_learnable_to_the_known_and_to_noise(logits, chunks):
    """Scores differ by several nats, so draws go astray with a probability of some percent; chance is a third."""
    draws = [
        select(*logits, 16, method="joint", chunks=chunks, generator=stream(0, "test", i)).tolist() for i in range(20)
    ]
    assert np.mean([sum(i < 16 for i in chosen) / 16 for chosen in draws]) > 0.8


@pytest.mark.parametrize("k", [1, 7, 48])
def test_as_many_different_pairs_as_asked_for_are_chosen(logits, k):
    chosen = select(*logits, k, method="joint", chunks=16, generator=stream(0, "test")).tolist()
    assert len(set(chosen)) == k
    assert chosen == sorted(chosen)


def test_the_choice_is_a_function_of_the_generator(logits):
    def choose(*key):
        return select(*logits, 8, method="joint", chunks=4, generator=stream(*key)).tolist()

    assert choose(0, "active", 5) == choose(0, "active", 5)
    assert len({tuple(choose(0, "active", step)) for step in range(10)}) > 1


@pytest.mark.parametrize("method", ["topk", "joint"])
def test_a_pairs_place_in_the_super_batch_does_not_matter_to_its_score(logits, rng, method):
    order = torch.from_numpy(rng.permutation(N))
    scores = learnability(*logits)
    torch.testing.assert_close(learnability(*(x[order][:, order] for x in logits)), scores[order])
    chosen = torch.tensor([3, 40, 17])
    where = torch.tensor([int((order == i).nonzero()) for i in chosen])
    torch.testing.assert_close(added_loss(logits[0][order][:, order], where), added_loss(logits[0], chosen)[order])
    if method == "topk":
        found = select(*(x[order][:, order] for x in logits), 16, method="topk", chunks=1, generator=stream(0, "t"))
        assert sorted(order[found].tolist()) == list(range(16))


@pytest.mark.parametrize("k", [0, N + 1])
def test_a_batch_that_does_not_fit_is_refused(logits, k):
    with pytest.raises(ValueError, match="Expected to keep between 1 and 48"):
        select(*logits, k, method="topk", chunks=1, generator=stream(0, "test"))


def test_a_super_batch_has_equal_groups():
    assert Selection(keep=0.2).super_batch(8) == 40
    assert Selection(keep=0.3, groups=4).super_batch(8) == 28  # 4 groups of 7, which keep 2 each
    with pytest.raises(ValueError, match=r"active.groups: expected a divisor of the batch of 8, got 3"):
        Selection(keep=0.5, groups=3).super_batch(8)
