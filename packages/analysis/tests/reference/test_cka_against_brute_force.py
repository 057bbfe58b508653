"""CKA against numbers from an O(n^4) loop and from the definition with Gram matrices."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from kd_analysis.cka import ESTIMATORS, leave_one_out, linear_cka, null_z, with_interval
from kd_analysis.gram import gram_cka
from kd_analysis.streaming import moments

KNOWN = json.loads(Path(__file__).with_name("cka.json").read_text())
REAL = Path(os.environ.get("KD_REAL_DATA", Path(__file__).parents[4].parent / "shared" / "data"))


def arithmetic():
    i, j = np.arange(1, 13)[:, None], np.arange(1, 5)
    x = np.sin(i * j) + 0.1 * i * j
    k = np.arange(1, 4)
    return x, np.cos(i * (k + 1)) + 0.2 * x[:, :1] * k


def tall():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 24))
    y = x @ (rng.standard_normal((24, 16)) / np.sqrt(24)) + rng.standard_normal((400, 16))
    return x + 3, y - 6


CASES = {"arithmetic": arithmetic, "tall": tall}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", CASES)
def test_streaming_and_gram_give_the_brute_force_value(name, estimator):
    x, y = CASES[name]()
    rows = [(x[i : i + 7], y[i : i + 7]) for i in range(0, len(x), 7)]
    assert linear_cka(moments(rows), estimator).value == pytest.approx(KNOWN[name][estimator], abs=1e-9)
    assert gram_cka(x, y, estimator) == pytest.approx(KNOWN[name][estimator], abs=1e-9)


@pytest.mark.parametrize(("name", "estimator"), [(n, e) for n in CASES for e in KNOWN[n]["jackknife_se"]])
def test_the_jackknife_gives_the_brute_force_error(name, estimator):
    x, y = CASES[name]()
    found = with_interval(moments([(x, y)]), [(x, y)], estimator)
    assert found.se == pytest.approx(KNOWN[name]["jackknife_se"][estimator], abs=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_leave_one_out_in_closed_form_is_leaving_one_out(estimator):
    x, y = tall()
    x, y = x[:40] * 3 + 50, y[:40]
    state = moments([(x, y)])
    left = leave_one_out(state, ((x[i : i + 9], y[i : i + 9]) for i in range(0, 40, 9)))[estimator]
    brute = [gram_cka(np.delete(x, i, 0), np.delete(y, i, 0), estimator) for i in range(40)]
    np.testing.assert_allclose(left, brute, atol=1e-12)


def test_the_permutation_null_has_mean_zero_and_the_stated_variance():
    """All 720 orders of 6 rows: exact, for these and for any other features."""
    from itertools import permutations

    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((6, 4)), rng.standard_normal((6, 9)) ** 3
    values = np.array([gram_cka(x, y[list(order)]) for order in permutations(range(6))])
    assert values.mean() == pytest.approx(0, abs=1e-12)
    assert values.var() == pytest.approx(2 / (6 * 3), abs=1e-12)
    assert null_z(float(values.std()), 6) == pytest.approx(1)


@pytest.mark.skipif(not (REAL / "mira_clip").exists(), reason=f"needs real embeddings in {REAL}")
def test_two_real_encoders_are_alike_and_shuffled_ones_are_not():
    x = np.load(REAL / "mira_clip" / "image_embeddings_fashion2k.npy")
    y = np.load(REAL / "fashion2k_clipb32" / "clip_vit_b32_image_embeddings.npy")
    assert linear_cka(moments([(x, y)]), "biased").value == pytest.approx(0.687, abs=5e-4)
    shuffled = np.random.default_rng(0).permutation(y)
    assert linear_cka(moments([(x, shuffled)]), "biased").value < 0.01
    assert abs(null_z(linear_cka(moments([(x, shuffled)])).value, len(x))) < 5
