import math

import numpy as np
import pytest
from kd_analysis import dissimilarity, gram, minibatch, neighbours, shape, subspaces
from kd_analysis.cka import linear_cka
from kd_analysis.streaming import moments


def pair(n=80, dx=6, dy=9, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dx))
    return x, x @ rng.standard_normal((dx, dy)) + 0.5 * rng.standard_normal((n, dy))


def test_what_is_blind_to_linear_maps_sees_none_and_cka_does():
    x, _ = pair()
    y = x @ (np.diag(np.arange(1.0, 7)) + 0.3 * np.random.default_rng(1).standard_normal((6, 6)))
    state = moments([(x, y)])
    for measure in (subspaces.cca, subspaces.svcca, subspaces.pwcca, subspaces.linear_r2):
        assert measure(state).value == pytest.approx(1, abs=0.02 if measure is subspaces.svcca else 1e-9)
    assert linear_cka(state).value < 0.99


def test_procrustes_is_one_after_a_rotation():
    x, _ = pair()
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    assert shape.procrustes(moments([(x, 3 * x @ rotation - 7)])).value == pytest.approx(1, abs=1e-12)


def test_regression_is_the_r2_of_least_squares():
    x, y = pair()
    u, v = x - x.mean(axis=0), y - y.mean(axis=0)
    residual = v - u @ np.linalg.lstsq(u, v, rcond=None)[0]
    expected = 1 - (residual**2).sum() / (v**2).sum()
    assert subspaces.linear_r2(moments([(x, y)])).value == pytest.approx(expected, abs=1e-12)


def test_rank_deficient_features_change_nothing():
    x, y = pair()
    wide = np.concatenate([x, x[:, :2] - x[:, 2:4], np.full((80, 1), 4.0)], axis=1)
    for measure in (subspaces.cca, subspaces.linear_r2):
        one, two = measure(moments([(x, y)])).value, measure(moments([(wide, y)])).value
        assert two == pytest.approx(one, abs=1e-8)


@pytest.mark.parametrize("measure", [subspaces.cca, subspaces.svcca, subspaces.pwcca, subspaces.linear_r2])
def test_fewer_images_than_features_leave_no_value_instead_of_one(measure):
    found = measure(moments([pair(7)]))
    assert math.isnan(found.value)
    assert "more images" in found.reason


def test_features_that_do_not_vary_leave_a_reason():
    y, flat = pair(20)[1], np.ones((20, 3))
    state = moments([(flat, y)])
    found = [measure(state) for measure in (subspaces.cca, subspaces.linear_r2, shape.procrustes)]
    found += [gram.kernel_cka(gram.linear_gram(flat), gram.linear_gram(y)), dissimilarity.rsa(flat, y)]
    for one in found:
        assert math.isnan(one.value)
        assert "vary" in one.reason
    with pytest.raises(ValueError, match="differ"):
        gram.rbf_gram(flat)


def test_neighbours_in_blocks_are_neighbours_at_once(monkeypatch):
    x, y = pair()
    whole = neighbours.mutual_knn(x, y, 5).value
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    assert neighbours.mutual_knn(x, y, 5).value == pytest.approx(whole, abs=1e-15)
    assert neighbours.mutual_knn(x, x, 5).value == 1
    assert "more than 80 images" in neighbours.mutual_knn(x, y, 80).reason


def test_one_outlier_moves_cka_and_not_the_neighbours():
    x, y = pair(200)
    far, near = x.copy(), neighbours.mutual_knn(x, y, 10, "l2").value
    far[0] += 1000
    assert abs(neighbours.mutual_knn(far, y, 10, "l2").value - near) < 0.01
    assert abs(linear_cka(moments([(far, y)])).value - linear_cka(moments([(x, y)])).value) > 0.1


def test_a_wide_rbf_kernel_is_the_linear_one():
    x, y = pair()
    assert gram.rbf_cka(x, y, 100).value == pytest.approx(gram.gram_cka(x, y), abs=1e-4)


def test_the_bandwidth_of_many_rows_is_that_of_a_seeded_sample(monkeypatch):
    x, _ = pair(60)
    monkeypatch.setattr(gram, "MEDIAN_ROWS", 20)
    found = [gram.rbf_gram(x, seed=seed).sigma for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_the_minibatch_estimate_depends_on_the_order_and_streaming_does_not():
    rng = np.random.default_rng(2)
    place = np.repeat(np.arange(20), 20)
    centres = rng.standard_normal((20, 8)) * 3
    x, y = (centres[place] @ rng.standard_normal((8, 8)) + rng.standard_normal((400, 8)) for _ in range(2))
    order = rng.permutation(400)
    both = []
    for rows in (np.arange(400), order):
        batches = [(x[rows[i : i + 20]], y[rows[i : i + 20]]) for i in range(0, 400, 20)]
        both.append((minibatch.minibatch_cka(batches).value, linear_cka(moments(batches)).value))
    assert abs(both[0][0] - both[1][0]) > 0.1
    assert both[0][1] == pytest.approx(both[1][1], abs=1e-12)
    with pytest.raises(ValueError, match="at least 4"):
        minibatch.minibatch_cka([(x[:3], y[:3])])


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: subspaces.pwcca(moments([(x, y)]), "z"),
        lambda x, y: subspaces.linear_r2(moments([(x, y)]), "z"),
        lambda x, y: neighbours.mutual_knn(x, y, 3, "dot"),
        lambda x, y: neighbours.mutual_knn(x, y[:-1], 3),
        lambda x, y: neighbours.mutual_knn(x, y, 0),
        lambda x, y: dissimilarity.rsa(x, y, "cosine"),
        lambda x, y: gram.rbf_gram(x, median="mean"),
        lambda x, y: minibatch.minibatch_cka([(x, y)], "mean"),
    ],
)
def test_unknown_choices_are_refused(call):
    with pytest.raises(ValueError, match="Expected"):
        call(*pair())
