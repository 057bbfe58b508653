"""The measures of a training against sums written out in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from kd_distill.monitors import accuracy, debiased_cka, head_norms, retrieval


def unbiased_hsic(k: np.ndarray, gram: np.ndarray) -> float:
    """Over all ordered quadruples of different rows: k_ij (l_ij + l_qr - 2 l_iq), the definition of the U-statistic."""
    terms = [
        k[i, j] * (gram[i, j] + gram[q, r] - 2 * gram[i, q]) for i, j, q, r in itertools.permutations(range(len(k)), 4)
    ]
    return math.fsum(terms) / len(terms)


def test_debiased_cka_is_the_ratio_of_u_statistics_over_quadruples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(9, 6))
    y[:, :4] += x
    k, gram = x @ x.T, y @ y.T
    expected = unbiased_hsic(k, gram) / math.sqrt(unbiased_hsic(k, k) * unbiased_hsic(gram, gram))
    assert debiased_cka(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-10)


def test_debiased_cka_of_noise_is_near_zero_where_the_biased_one_is_not():
    rng = torch.Generator().manual_seed(0)
    values = [
        debiased_cka(torch.randn(100, 200, generator=rng), torch.randn(100, 300, generator=rng)) for _ in range(10)
    ]
    assert abs(sum(values) / 10) < 0.05


def test_debiased_cka_is_one_for_features_that_differ_by_rotation_and_scale():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(20, 5, generator=rng, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=rng, dtype=torch.float64)).Q
    assert debiased_cka(x, 3 * x @ rotation) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("rows", "others"), [(3, 3), (5, 6)])
def test_debiased_cka_needs_four_rows_of_both(rows, others):
    with pytest.raises(ValueError, match="same 4 rows or more"):
        debiased_cka(torch.zeros(rows, 2), torch.zeros(others, 2))


def test_retrieval_of_matching_embeddings_is_perfect_and_of_swapped_ones_is_not():
    eye = torch.eye(4, dtype=torch.float64)
    perfect = retrieval(eye, eye, torch.tensor(10.0))
    assert perfect["val/image_to_text_r1"] == perfect["val/text_to_image_r1"] == 1
    assert perfect["val/loss"] == pytest.approx(math.log(1 + 3 * math.exp(-10)), rel=1e-6)
    swapped = retrieval(eye, eye[[1, 0, 2, 3]], torch.tensor(10.0))
    assert swapped["val/image_to_text_r1"] == 0.5


def test_accuracy_is_the_share_of_images_next_to_their_class():
    classes = torch.eye(3)
    assert accuracy(classes[[0, 1, 2, 2]], classes, torch.tensor([0, 1, 2, 0])) == 0.75


def test_norms_are_of_what_stands_outside_the_student():
    task = torch.nn.ModuleDict({"student": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1, bias=False)})
    with torch.no_grad():
        task["head"].weight.copy_(torch.tensor([[3.0, 4.0]]))
    assert head_norms(task) == {"monitor/norm/head.weight": 5.0}
