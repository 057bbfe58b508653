"""Where torch-cka 0.21 is wrong in silence: four ordinary situations, by its own formula, beside this package.

The formula is the one in its source (unbiased HSIC of float32 Gram matrices, a plain mean over batches, two passes over
one loader), written here again, so that the test needs no second package.
"""

import math

import numpy as np
import pytest
from kd_analysis.cka import linear_cka
from kd_analysis.gram import gram_cka
from kd_analysis.streaming import moments

N = 1000


def hsic(K, L):
    n = np.float32(len(K))
    K, L = K.copy(), L.copy()
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    ones = np.ones((len(K), 1), np.float32)
    total = np.trace(K @ L) + (ones.T @ K @ ones @ ones.T @ L @ ones).item() / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * (ones.T @ K @ L @ ones).item()) / (n * (n - 3))


def theirs(x_batches, y_batches):
    sums = np.zeros(3, np.float32)
    for x, y in zip(x_batches, y_batches, strict=True):
        K, L = x @ x.T, y @ y.T
        sums += np.array([hsic(K, K), hsic(K, L), hsic(L, L)], np.float32) / np.float32(len(x_batches))
    return float(sums[1] / (np.sqrt(sums[0]) * np.sqrt(sums[2])))


def ours(x_batches, y_batches):
    return linear_cka(moments(zip(x_batches, y_batches, strict=True))).value


def cut(z, size=100):
    return [z[i : i + size] for i in range(0, len(z), size)]


@pytest.fixture(scope="module")
def features():
    """Two encoders of images from 50 classes, in no order; exact CKA by the definition."""
    rng = np.random.default_rng(0)
    place = rng.permutation(np.arange(N) % 50)
    hidden = 1.5 * rng.standard_normal((50, 24))[place] + rng.standard_normal((N, 24))
    sides = [hidden @ rng.standard_normal((24, w)) + 6 * rng.standard_normal((N, w)) for w in (40, 64)]
    return [z.astype(np.float32) for z in sides], place


def test_the_formula_is_right_where_nothing_is_wrong(features):
    (x, y), _ = features
    assert theirs([x - x.mean(0)], [y - y.mean(0)]) == pytest.approx(gram_cka(x, y), abs=1e-4)
    assert ours(cut(x), cut(y)) == pytest.approx(gram_cka(x, y), abs=1e-9)


def test_a_shuffling_loader_read_twice_pairs_other_images(features):
    """The images of the two sides are joined by id here; another order of one side changes nothing."""
    from kd_analysis.comparing import Features, Pair, compare

    (x, y), _ = features
    order = np.random.default_rng(1).permutation(N)
    assert abs(theirs(cut(x), cut(y[order]))) < 0.05
    ids = tuple(map(str, range(N)))
    given = {"s": Features(ids, x), "t": Features(tuple(ids[i] for i in order), y[order])}
    pair = Pair("student", "teacher", "own teacher", "s", "t")
    found = compare(
        [pair], given, {"all": ids}, tap="pooled", estimators=("debiased",), level=0.95,
        sha256={"student": "", "teacher": ""},
    ).records[0]  # fmt: skip
    assert found.value == pytest.approx(gram_cka(x, y), abs=1e-9)


def test_a_loader_sorted_by_class_compares_classes_with_themselves(features):
    (x, y), place = features
    order = np.argsort(place, kind="stable")
    exact = gram_cka(x, y)
    assert abs(theirs(cut(x[order], 20), cut(y[order], 20)) - exact) > 0.05
    assert ours(cut(x[order], 20), cut(y[order], 20)) == pytest.approx(exact, abs=1e-9)


def test_a_mean_far_from_zero_drowns_what_varies(features):
    (x, y), _ = features
    far = x + np.float32(3000) * x.std()
    exact = gram_cka(far.astype(float), y)
    assert exact == pytest.approx(gram_cka(x, y), abs=1e-3)
    with np.errstate(all="ignore"):
        found = theirs([far], [y])
    assert math.isnan(found) or abs(found - exact) > 0.05
    assert ours(cut(far), cut(y)) == pytest.approx(exact, abs=1e-8)


@pytest.mark.parametrize("last", [1, 3, 5])
def test_a_short_last_batch_counts_as_a_whole_one_or_stops(features, last):
    (x, y), _ = features
    x, y = x[: 200 + last], y[: 200 + last]
    exact = gram_cka(x, y)
    with np.errstate(all="ignore"):
        found = theirs(cut(x), cut(y))
    assert not math.isfinite(found) or abs(found - exact) > 0.005
    assert ours(cut(x), cut(y)) == pytest.approx(exact, abs=1e-9)
