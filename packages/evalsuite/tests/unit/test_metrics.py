import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kd_evalsuite.items import DataError, Item
from kd_evalsuite.metrics import Judged, Verdict, category_mean, clusters_right, items_mean, mean_where, mme_total
from kd_evalsuite.stats import clustered_stderr


def judged(key, cluster, score, *, category="", choices=("Yes", "No")):
    return Judged(Item(key, "?", ("Yes",), choices, category=category), cluster, Verdict(score, "Yes"))


def pairs(n, rng, category="existence"):
    return [
        judged(f"{category}{k}{side}", f"{category}/{k}", float(rng.random() < 0.7), category=category)
        for k in range(n)
        for side in "ab"
    ]


@given(st.randoms(use_true_random=False))
def test_no_aggregate_depends_on_the_order_of_items(rnd):
    rows = pairs(6, random.Random(1)) + pairs(5, random.Random(2), "count")
    mixed = rows[:]
    rnd.shuffle(mixed)
    for aggregate in (items_mean, clusters_right, category_mean, mme_total):
        a, b = aggregate(rows), aggregate(mixed)
        assert (a.value, a.stderr, a.n, a.chance) == pytest.approx((b.value, b.stderr, b.n, b.chance))
        shares = {j.item.id: s for j, s in zip(a.judged, a.shares, strict=True)}
        assert shares == {j.item.id: s for j, s in zip(b.judged, b.shares, strict=True)}


def test_mean_of_shares_is_the_value_over_its_best():
    rows = pairs(10, random.Random(0)) + pairs(10, random.Random(1), "count")
    for aggregate in (items_mean, clusters_right, mme_total):
        e = aggregate(rows)
        assert np.mean(e.shares) == pytest.approx(e.value / e.best)


def test_circular_accuracy_never_exceeds_the_vanilla_one():
    for seed in range(20):
        rows = pairs(8, random.Random(seed))
        assert clusters_right(rows).value <= items_mean(rows).value


def test_chance_is_that_of_a_uniform_guess():
    rows = pairs(4, random.Random(0)) + pairs(4, random.Random(0), "count")
    assert items_mean(rows).chance == 0.5
    assert clusters_right(rows).chance == 0.25
    assert mme_total(rows).chance == 150
    assert items_mean([judged("a", "a", 1.0, choices=())]).chance is None
    mixed = [judged("a", "a", 1.0, choices=()), judged("b", "b", 0.0, choices=("1", "2", "3", "4"))]
    assert items_mean(mixed).chance == 0.125


def test_error_of_the_mme_sum_is_that_of_resampled_images():
    rows = [
        row for c, seed in (("existence", 0), ("count", 1), ("OCR", 2)) for row in pairs(30, random.Random(seed), c)
    ]
    exact = mme_total(rows)
    rng = np.random.default_rng(0)
    totals = np.zeros(4000)
    for category in ("existence", "count", "OCR"):
        share = {j.cluster: s for j, s in zip(exact.judged, exact.shares, strict=True) if j.item.category == category}
        totals += 200 * rng.choice(list(share.values()), (4000, len(share))).mean(axis=1)
    assert exact.stderr == pytest.approx(totals.std(), rel=0.06)


def test_an_image_with_one_question_is_refused():
    with pytest.raises(DataError, match="two questions on image existence/0"):
        mme_total(pairs(3, random.Random(0))[1:])


def test_clusters_that_agree_widen_the_error():
    x = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert clustered_stderr(x, [0, 0, 1, 1, 2, 2, 3, 3]) > 1.3 * clustered_stderr(x, range(8))
    assert clustered_stderr(x, [0] * 8) == 0.5


def test_mean_where_counts_only_what_it_keeps():
    rows = [judged("a", "a", 1.0, category="x"), judged("b", "b", 0.0, category="y")]
    assert mean_where(lambda item: item.category == "x")(rows).n == 1
