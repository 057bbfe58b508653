import pytest
import torch
import torch.nn.functional as F
from kd_distill.losses import (
    contrastive,
    contrastive_relational,
    feature_distillation,
    interactive_contrastive,
    mix,
    relational_kl,
)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def unit(rng: torch.Generator, n: int = 6, d: int = 8) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=rng, dtype=torch.float64), dim=-1)


def test_relational_kl_of_equal_logits_is_zero(rng):
    logits = torch.randn(5, 5, generator=rng)
    assert relational_kl(logits, logits).item() == pytest.approx(0, abs=1e-7)


def test_relational_kl_is_a_divergence(rng):
    student, teacher = torch.randn(2, 5, 7, generator=rng, dtype=torch.float64)
    p, q = teacher.softmax(-1), student.softmax(-1)
    assert relational_kl(student, teacher).item() == pytest.approx((p * (p / q).log()).sum(-1).mean().item(), rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean_nd", "mean_n"])
def test_feature_distillation_is_two_minus_two_cosines(rng, reduction):
    student, teacher = unit(rng), unit(rng)
    expected = (2 - 2 * (student * teacher).sum(-1)).mean() / (8 if reduction == "mean_nd" else 1)
    torch.testing.assert_close(feature_distillation(student, teacher, reduction), expected)


def test_feature_distillation_of_other_widths_is_refused(rng):
    with pytest.raises(ValueError, match="one shape"):
        feature_distillation(unit(rng, d=8), unit(rng, d=4))


def test_feature_distillation_of_an_unknown_reduction_is_refused(rng):
    with pytest.raises(ValueError, match="mean_nd or mean_n"):
        feature_distillation(unit(rng), unit(rng), "sum")


def test_no_term_sends_a_gradient_to_the_teacher(rng):
    student, teacher = unit(rng).requires_grad_(), unit(rng).requires_grad_()
    scale = torch.tensor(14.0, dtype=torch.float64)
    total = (
        feature_distillation(student, teacher)
        + contrastive_relational(student @ student.T, teacher @ teacher.T)
        + interactive_contrastive(student, student, teacher, teacher, scale)
    )
    total.backward()
    assert teacher.grad is None
    assert student.grad is not None


@pytest.mark.parametrize("name", ["task", "ckd", "fd", "icl"])
def test_the_order_of_pairs_does_not_matter(rng, name):
    image, text, image_t, text_t = (unit(rng) for _ in range(4))

    def value(order: torch.Tensor) -> torch.Tensor:
        i, t, it, tt = image[order], text[order], image_t[order], text_t[order]
        return {
            "task": lambda: contrastive(9 * i @ t.T),
            "ckd": lambda: contrastive_relational(9 * i @ t.T, 20 * it @ tt.T),
            "fd": lambda: feature_distillation(i, it) + feature_distillation(t, tt),
            "icl": lambda: interactive_contrastive(i, t, it, tt, torch.tensor(9.0)),
        }[name]()

    torch.testing.assert_close(value(torch.arange(6)), value(torch.randperm(6, generator=rng)))


def test_contrastive_loss_of_equal_logits_is_the_logarithm_of_the_batch():
    assert contrastive(torch.zeros(16, 16)).item() == pytest.approx(torch.tensor(16.0).log().item())


def test_mix_weighs_terms_by_name():
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert mix(terms, {"b": 10.0, "a": 1.0}).item() == 32


def test_mix_refuses_a_weight_without_a_term():
    with pytest.raises(ValueError, match="different things"):
        mix({"a": torch.tensor(1.0)}, {"a": 1.0, "fd": 2000.0})
