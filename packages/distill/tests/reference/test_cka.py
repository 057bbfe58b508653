"""CKA against brute force over all n (n - 1) (n - 2) (n - 3) quadruples in float64, computed elsewhere."""

import pytest
import torch
from kd_distill.losses import cka


def arithmetic() -> tuple[torch.Tensor, torch.Tensor]:
    i, j = torch.arange(1.0, 13, dtype=torch.float64)[:, None], torch.arange(1.0, 5, dtype=torch.float64)
    x = torch.sin(i * j) + 0.1 * i * j
    return x, torch.cos(i * (j[:3] + 1)) + 0.2 * x[:, :1] * j[:3]


@pytest.mark.parametrize(("debiased", "expected"), [(True, -0.1476042272113344), (False, 0.09789601427815689)])
def test_cka_equals_brute_force(debiased, expected):
    assert cka(*arithmetic(), debiased=debiased).item() == pytest.approx(expected, rel=1e-10)


def test_cka_of_several_cases_is_that_of_each():
    x, y = arithmetic()
    both = cka(torch.stack([x, x.flip(0)]), torch.stack([y, y]))
    torch.testing.assert_close(both, torch.stack([cka(x, y), cka(x.flip(0), y)]))
