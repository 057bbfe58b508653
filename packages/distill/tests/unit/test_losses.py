"""Facts about the pure functions."""

import math

import pytest
import torch
import torch.nn.functional as F
from kd_distill.losses import (
    TERMS,
    Statistics,
    augmented,
    cka,
    cka_distance,
    contrastive,
    contrastive_gradients,
    feature_distillation,
    gradient_distillation,
    mean_of_teachers,
    mix,
    pair_cross_entropy,
    patch_distillation,
    relational_kl,
    resample,
    sigmoid_kl,
    soft_cross_entropy,
    standardised_distance,
    sums_of,
    terms_named,
    without_self,
)

N, D, W = 6, 8, 5
LABELS = torch.arange(N)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def normal(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def unit(rng: torch.Generator, n: int = N, d: int = D) -> torch.Tensor:
    return F.normalize(normal(rng, n, d), dim=-1)


# Each function of (the student's x, the teacher's y), both of shape (N, D) or as said, with one scalar out.
PURE = {
    "pair_cross_entropy": lambda x, y: pair_cross_entropy((x @ y.T).log_softmax(-1), LABELS),
    "contrastive": lambda x, y: contrastive(x @ y.T),
    "relational_kl": lambda x, y: relational_kl((x @ x.T).log_softmax(-1), (y @ y.T).log_softmax(-1)),
    "soft_cross_entropy": lambda x, y: soft_cross_entropy((x @ x.T).log_softmax(-1), (y @ y.T).log_softmax(-1)),
    "mean_of_teachers": lambda x, y: soft_cross_entropy(
        (x @ x.T).log_softmax(-1), mean_of_teachers([(y @ y.T).log_softmax(-1), (2 * y @ y.T).log_softmax(-1)])
    ),
    "without_self": lambda x, y: relational_kl(
        without_self(x @ x.T, LABELS).log_softmax(-1), without_self(y @ y.T, LABELS).log_softmax(-1)
    ),
    "sigmoid_kl": lambda x, y: sigmoid_kl(x @ x.T - 1, y @ y.T - 2),
    "feature mean_nd": lambda x, y: feature_distillation(x, y),
    "feature mean_n": lambda x, y: feature_distillation(x, y, "mean_n"),
    "gradient": lambda x, y: torch.stack(
        [
            gradient_distillation(a, b)
            for a, b in zip(
                contrastive_gradients(x, x.flip(1), LABELS, 3.0),
                contrastive_gradients(y, y.flip(1), LABELS, 2.0),
                strict=True,
            )
        ]
    ).sum(),
    "augmented": lambda x, y: (
        augmented(x, y, torch.ones(D, 2 * D).triu().double(), torch.ones(D).double())
        .square()
        .mul(torch.arange(N)[:, None])[:, 0]
        .sum()
    ),
    "cka": lambda x, y: cka_distance(x, y[:, :W]),
    "cka biased": lambda x, y: 1 - cka(x, y.detach()[:, :W], debiased=False),
    "patch": lambda x, y: patch_distillation(x.view(2, 3, D), y.view(2, 3, D)),
    "standardised": lambda x, y: standardised_distance(x, y),
}
ZERO_AT_EQUALITY = (
    "relational_kl",
    "without_self",
    "sigmoid_kl",
    "feature mean_nd",
    "feature mean_n",
    "gradient",
    "patch",
    "standardised",
)


@pytest.mark.parametrize("name", PURE)
def test_the_gradient_equals_finite_differences(rng, name):
    """gradcheck compares with central differences of step 1e-6, whose error is about 1e-9."""
    y = normal(rng, N, D)
    assert torch.autograd.gradcheck(lambda x: PURE[name](x, y), (normal(rng, N, D).requires_grad_(),), atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(PURE) - {"pair_cross_entropy", "contrastive"}))
def test_no_gradient_reaches_the_teacher(rng, name):
    x, y = normal(rng, N, D).requires_grad_(), normal(rng, N, D).requires_grad_()
    PURE[name](x, y).backward()
    assert y.grad is None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ZERO_AT_EQUALITY)
def test_it_is_zero_when_the_student_equals_the_teacher(rng, name):
    x = normal(rng, N, D)
    functions = {
        "sigmoid_kl": lambda: sigmoid_kl(x @ x.T - 2, x @ x.T - 2),
        "gradient": lambda: gradient_distillation(x, x),
    }
    assert functions.get(name, lambda: PURE[name](x, x))().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "name", ["relational_kl", "sigmoid_kl", "feature mean_nd", "patch", "standardised", "gradient"]
)
def test_it_is_positive_for_a_student_that_differs(rng, name):
    assert PURE[name](normal(rng, N, D), normal(rng, N, D)).item() > 0.01 * (name != "gradient")


def test_relational_kl_is_a_divergence(rng):
    student, teacher = normal(rng, 2, 5, 7)
    p, q = teacher.softmax(-1), student.softmax(-1)
    value = relational_kl(student.log_softmax(-1), teacher.log_softmax(-1))
    assert value.item() == pytest.approx((p * (p / q).log()).sum(-1).mean().item(), rel=1e-12)


def test_soft_cross_entropy_is_the_kl_plus_the_teachers_entropy(rng):
    log_q, log_p = (normal(rng, N, N).log_softmax(-1) for _ in range(2))
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    torch.testing.assert_close(soft_cross_entropy(log_q, log_p), relational_kl(log_q, log_p) + entropy)


def test_the_mean_of_teachers_is_a_mean_of_probabilities(rng):
    logs = [normal(rng, N, N).log_softmax(-1) for _ in range(3)]
    torch.testing.assert_close(mean_of_teachers(logs).exp(), sum(x.exp() for x in logs) / 3)


def test_without_self_an_anchor_has_no_probability_of_itself(rng):
    probabilities = without_self(normal(rng, 3, N), torch.tensor([4, 0, 2])).softmax(-1)
    assert probabilities[[0, 1, 2], [4, 0, 2]].tolist() == [0, 0, 0]


def test_sigmoid_kl_equals_the_sum_over_pairs_of_a_loop(rng):
    student, teacher = normal(rng, 3, 4), normal(rng, 3, 4)
    expected = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-t)), 1 / (1 + math.exp(-s))
        expected += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert sigmoid_kl(student, teacher).item() == pytest.approx(expected / 3, rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean_nd", "mean_n"])
def test_feature_distillation_of_unit_vectors_is_two_minus_two_cosines(rng, reduction):
    student, teacher = unit(rng), unit(rng)
    expected = (2 - 2 * (student * teacher).sum(-1)).mean() / (D if reduction == "mean_nd" else 1)
    torch.testing.assert_close(feature_distillation(student, teacher, reduction), expected)


def test_feature_distillation_of_other_widths_is_refused(rng):
    with pytest.raises(ValueError, match="one shape"):
        feature_distillation(unit(rng, d=8), unit(rng, d=4))


def test_feature_distillation_of_an_unknown_reduction_is_refused(rng):
    with pytest.raises(ValueError, match="mean_nd or mean_n"):
        feature_distillation(unit(rng), unit(rng), "sum")


def test_contrastive_gradients_are_those_of_the_contrastive_loss(rng):
    anchors, keys = unit(rng).requires_grad_(), unit(rng).requires_grad_()
    F.cross_entropy(7 * anchors @ keys.T, LABELS).backward()
    of_anchors, of_keys = contrastive_gradients(anchors.detach(), keys.detach(), LABELS, 7.0)
    torch.testing.assert_close((of_anchors, of_keys), (anchors.grad, keys.grad))


def test_contrastive_loss_of_equal_logits_is_the_logarithm_of_the_batch():
    assert contrastive(torch.zeros(16, 16)).item() == pytest.approx(math.log(16))


def test_augmented_embeddings_have_unit_length_for_any_widths(rng):
    fused = augmented(unit(rng), unit(rng, d=W), normal(rng, D, D + W), normal(rng, D))
    torch.testing.assert_close(fused.norm(dim=-1), torch.ones(N, dtype=torch.float64))


def test_cka_is_one_for_a_rotated_scaled_and_shifted_copy(rng):
    x = normal(rng, 20, D)
    rotation = torch.linalg.qr(normal(rng, D, D)).Q
    for debiased in (True, False):
        assert cka(x, 3 * x @ rotation + 1, debiased=debiased).item() == pytest.approx(1, rel=1e-12)


def test_cka_does_not_depend_on_which_matrix_is_the_smaller(rng):
    """Features padded with zeros are the same features; past n dimensions the products are taken over samples."""
    x, y = normal(rng, N, W), normal(rng, N, W)
    padded = F.pad(x, (0, 2 * N)), F.pad(y, (0, 2 * N))
    torch.testing.assert_close(cka(*padded), cka(x, y))


def test_cka_of_fewer_than_four_samples_is_refused(rng):
    with pytest.raises(ValueError, match="expected 4 and more, got 3"):
        cka(normal(rng, 3, 2), normal(rng, 3, 2))


def test_resampling_to_the_same_grid_changes_nothing(rng):
    tokens = normal(rng, 2, 12, 3)
    assert torch.equal(resample(tokens, (3, 4), (3, 4)), tokens)


@pytest.mark.parametrize("target", [(2, 2), (5, 7), (3, 4)])
def test_resampling_keeps_a_constant(target):
    tokens = torch.full((1, 12, 2), 1.5)
    torch.testing.assert_close(resample(tokens, (3, 4), target), torch.full((1, target[0] * target[1], 2), 1.5))


def test_resampling_keeps_rows_and_columns_apart():
    """A ramp along the columns stays one, and rows stay equal."""
    tokens = torch.arange(4.0).repeat(4)[None, :, None]
    small = resample(tokens, (4, 4), (2, 2)).view(2, 2)
    assert torch.equal(small[0], small[1])
    assert small[0, 0] < 1 < 2 < small[0, 1]


def test_resampling_another_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match="3 x 4 patch tokens, got 11"):
        resample(torch.zeros(1, 11, 2), (3, 4), (2, 2))


def test_statistics_over_batches_are_those_of_all_samples(rng):
    x = normal(rng, 50, D) * torch.arange(1, D + 1) + 3
    statistics = Statistics(D)
    for part in x.split([1, 20, 7, 22]):
        statistics.update(sums_of(part))
    torch.testing.assert_close(statistics.mean, x.mean(0))
    torch.testing.assert_close(statistics.variance, x.var(0, correction=0))
    y = statistics.standardise(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(D).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(D).double())


def test_empty_statistics_standardise_nothing():
    with pytest.raises(ValueError, match="empty"):
        Statistics(2).standardise(torch.zeros(1, 2))


def test_mix_weighs_terms_by_name():
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert mix(terms, {"b": 10.0, "a": 1.0}).item() == 32


def test_mix_refuses_a_weight_without_a_term():
    with pytest.raises(ValueError, match="different things"):
        mix({"a": torch.tensor(1.0)}, {"a": 1.0, "fd": 2000.0})


def test_an_unknown_term_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"Unknown loss terms \['fdd'\]. Known: task, ckd"):
        terms_named(["task", "fdd"])


def test_every_term_with_anchors_of_both_modalities_reads_captions():
    assert all(term.text for term in TERMS.values() if "text" in term.anchors)
