"""Statistics against scipy, against brute force in float64, and against what intervals and tests promise."""

import itertools

import numpy as np
import pytest
from kd_evalsuite import resample
from kd_evalsuite.stats import clustered_stderr, detectable, holm, mcnemar, score_interval
from scipy import stats as scipy_stats


def difference(rng, n=60, clusters=20, strata=1):
    values = rng.integers(0, 2, n) - rng.integers(0, 2, n).astype(float)
    place = rng.permutation(np.arange(n) % clusters)
    return values, place, place % strata


@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (5, 0), (3, 8), (40, 61), (700, 655), (6000, 6200)])
def test_mcnemar_is_scipys_exact_binomial_test(counts):
    n = sum(counts)
    expected = scipy_stats.binomtest(counts[0], n).pvalue if n else 1.0
    assert mcnemar(*counts) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(*counts) == mcnemar(*reversed(counts))


def test_holm_rejects_what_the_stepwise_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = {str(i): float(x) for i, x in enumerate(rng.random(6) ** 4)}
        for level in (0.01, 0.05, 0.2):
            rejected = set()
            for rank, name in enumerate(sorted(p, key=p.get)):
                if p[name] > level / (len(p) - rank):
                    break
                rejected.add(name)
            assert {name for name, q in holm(p).items() if q <= level} == rejected


def test_quantiles_are_scipys():
    low, high = score_interval(0.5, 0.1, 1.0, 9, 0.9)
    assert (low, high) == pytest.approx(scipy_stats.norm.interval(0.9, 0.5, 0.1))
    assert score_interval(0.99, 0.1, 1.0, 9)[1] == 1.0
    z = scipy_stats.norm.ppf([0.975, 0.8]).sum()
    assert detectable(2.0) == pytest.approx(2.0 * z)


@pytest.mark.parametrize("n", [2, 17, 1000])
def test_where_no_item_or_every_item_is_right_the_interval_is_scipys_exact_one(n):
    none = scipy_stats.binomtest(0, n).proportion_ci(0.9)
    every = scipy_stats.binomtest(n, n).proportion_ci(0.9)
    assert score_interval(0.0, 0.0, 100.0, n, 0.9) == pytest.approx((100 * none.low, 100 * none.high))
    assert score_interval(100.0, 0.0, 100.0, n, 0.9) == pytest.approx((100 * every.low, 100 * every.high))


def test_a_detectable_difference_is_detected_four_times_out_of_five():
    rng = np.random.default_rng(1)
    found = np.abs(rng.normal(detectable(1.0), 1.0, 20_000)) > scipy_stats.norm.ppf(0.975)
    assert found.mean() == pytest.approx(0.8, abs=0.01)  # 3.5 standard deviations


@pytest.mark.parametrize("strata", [1, 4])
def test_estimate_and_error_are_those_of_a_loop_over_clusters(strata):
    values, place, of = difference(np.random.default_rng(2), strata=strata)
    found = resample.strata_of(values, place, of)
    means, variances = [], []
    for s in range(strata):
        mine = of == s
        means.append(values[mine].mean())
        variances.append(clustered_stderr(list(values[mine]), list(place[mine])) ** 2)
    assert resample.estimate(found) == pytest.approx(np.mean(means), rel=1e-14)
    assert resample.stderr(found) == pytest.approx(np.sqrt(np.sum(variances)) / strata, rel=1e-12)


@pytest.mark.parametrize("strata", [1, 3])
@pytest.mark.parametrize("dear", [0, 10**9])
def test_bootstrap_draws_have_the_distribution_of_a_loop(monkeypatch, strata, dear):
    """By counts of kinds and by index: the same distribution as drawing whole clusters one sample at a time."""
    monkeypatch.setattr(resample, "DEAREST_KINDS", dear)
    values, place, of = difference(np.random.default_rng(3), strata=strata)
    draws = resample.bootstrap(resample.strata_of(values, place, of), np.random.default_rng(4), 8000)
    rng = np.random.default_rng(5)
    groups = [[values[place == c] for c in np.unique(place[of == s])] for s in range(strata)]
    loop = [
        np.mean([np.concatenate([some[i] for i in rng.integers(len(some), size=len(some))]).mean() for some in groups])
        for _ in range(4000)
    ]
    assert scipy_stats.ks_2samp(draws, loop).pvalue > 0.001
    assert draws.std() == pytest.approx(np.std(loop), rel=0.05)


def test_sign_flips_are_all_sign_patterns_of_a_small_sample():
    rng = np.random.default_rng(6)
    points = rng.integers(-3, 4, 10).astype(float)
    strata = (resample.Stratum(points, np.full(10, 4.0)),)
    every = [abs(np.dot(signs, points)) for signs in itertools.product((-1, 1), repeat=10)]
    exact = np.mean(np.array(every) >= abs(points.sum()) - 1e-9)
    found = resample.sign_flip_p(strata, resample.flipped(strata, rng, 40_000))
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 40_000) + 1e-4)


def test_sign_flips_of_single_right_or_wrong_items_are_mcnemar():
    values = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 30)
    strata = resample.strata_of(values, np.arange(41), np.zeros(41, dtype=np.int64))
    assert resample.sign_flip_p(strata, np.zeros(1)) == mcnemar(9, 2)


def test_far_out_p_is_bounded_from_above_where_no_draw_reaches():
    """All of 20 differences of unequal size have one sign: the exact p is 2 / 2^20, no draw of 999 is as far."""
    values = np.random.default_rng(7).uniform(0.5, 1, 20)
    strata = resample.strata_of(values, np.arange(20), np.zeros(20, dtype=np.int64))
    nulls = resample.flipped(strata, np.random.default_rng(8), 999)
    assert 2 / 2**20 < resample.sign_flip_p(strata, nulls) < 1 / 1000
    assert resample.flip_variance(strata) == pytest.approx(nulls.var(), rel=0.2)


def clustered_world(rng, shift, clusters=80):
    """Differences of right-or-wrong scores on images with one to six questions; questions of an image go together."""
    sizes = rng.integers(1, 7, clusters)
    place = np.repeat(np.arange(clusters), sizes)
    level = rng.normal(shift, 0.25, clusters)[place]
    first = rng.random(len(place)) < 0.5
    second = rng.random(len(place)) < np.clip(0.5 + level, 0, 1)
    values = second.astype(float) - first
    return resample.strata_of(values, place, np.zeros(len(place), dtype=np.int64))


def test_intervals_cover_the_truth_and_tests_hold_their_level():
    """400 worlds: the 95 % interval covers about 95 %, and without a difference 5 % of p lie below .05."""
    rng = np.random.default_rng(9)
    covered = rejected = 0
    for _ in range(400):
        strata = clustered_world(rng, 0.0)
        low, high = resample.percentile_interval(resample.bootstrap(strata, rng, 600), 0.95)
        covered += low <= 0 <= high
        rejected += resample.sign_flip_p(strata, resample.flipped(strata, rng, 600)) < 0.05
    assert 0.915 <= covered / 400 <= 0.975  # 0.95 - 3.2 and + 2.3 standard deviations; percentile intervals are short
    assert 0.02 <= rejected / 400 <= 0.085
