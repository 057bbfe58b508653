"""Statistics against scipy, against each other, and against numbers recomputed from the published tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from kd_analysis.clustered import clustered
from kd_analysis.ranks import concordance, kendall, spearman
from kd_analysis.stats import bootstrap, holm, mcnemar, normal, sandwich_se, sign_test, t_interval
from scipy import stats as sp

PAPER = json.loads(Path(__file__).with_name("paper.json").read_text())


def column(path):
    value = PAPER
    for key in path:
        value = value[key]
    return value


@pytest.mark.parametrize("case", PAPER["tests"], ids=lambda c: "-".join([*c["x"], *c["y"]]))
def test_rank_tests_of_the_published_tables(case):
    x, y = column(case["x"]), column(case["y"])
    rho, tau = spearman(x, y), kendall(x, y)
    assert rho.value == pytest.approx(case["rho"], abs=6e-4)
    assert rho.p == pytest.approx(case["rho_p"], abs=6e-4)
    assert tau.value == pytest.approx(case["tau"], abs=6e-4)
    assert tau.p == pytest.approx(case["tau_p"], abs=6e-4)
    assert list(concordance(x, y)) == case["pairs"]


@pytest.mark.parametrize("family", ["dfn", "clip"])
def test_signs_over_tasks_within_a_family_of_teachers(family):
    gaps = np.subtract(PAPER[f"{family}_large"], PAPER[f"{family}_base"])
    up, down, zero, p = PAPER["signs"][family]
    assert sign_test(gaps.tolist())[:3] == (up, down, zero)
    assert sign_test(gaps.tolist())[3] == pytest.approx(p, abs=6e-4)


def test_five_teachers_cannot_give_a_p_below_one_in_sixty():
    assert spearman([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]).p == pytest.approx(2 / 120)


def test_coefficients_are_those_of_scipy():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 4, 12).tolist(), rng.integers(0, 4, 12).tolist()
    assert spearman(x, y, rng).value == pytest.approx(sp.spearmanr(x, y).statistic)
    assert kendall(x, y, rng).value == pytest.approx(sp.kendalltau(x, y).statistic)


def test_exact_kendall_p_is_that_of_scipy_without_ties():
    x, y = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]
    assert kendall(x, y).p == pytest.approx(sp.kendalltau(x, y, method="exact").pvalue)


def test_mcnemar_is_the_binomial_test_of_the_discordant_items():
    one, two = [1, 1, 1, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0, 0]
    assert mcnemar(one, two) == (5, 1, pytest.approx(sp.binomtest(5, 6).pvalue))


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "b": 0.06, "c": 0.06}


def test_the_t_interval_is_that_of_scipy():
    values = [61.0, 63.5, 60.2]
    low, high = sp.t.interval(0.95, 2, loc=np.mean(values), scale=sp.sem(values))
    found = t_interval(values)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_without_clusters_the_sandwich_error_is_the_standard_error_of_the_mean():
    scores = np.random.default_rng(2).random(50)
    task = clustered((str(i), float(s)) for i, s in enumerate(scores))
    assert sandwich_se(task) == pytest.approx(sp.sem(scores))


def test_the_bootstrap_agrees_with_the_sandwich_error():
    rng = np.random.default_rng(4)
    task = clustered((str(i // 3), float(rng.random() < 0.2 + 0.6 * (i // 3 % 2))) for i in range(900))
    suite = {"a": task, "b": task}
    found = bootstrap(suite, np.random.default_rng(0), n_bootstrap=8000)
    assert found.se == pytest.approx(normal(suite).se, rel=0.05)
    assert found.low == pytest.approx(normal(suite).low, abs=0.004)


def test_the_bootstrap_over_kinds_is_the_bootstrap_over_clusters():
    """The distribution of the score when clusters are drawn one by one, against the grouped draw."""
    rng = np.random.default_rng(6)
    task = clustered((str(i // 2), float(rng.random() < 0.4)) for i in range(120))
    drawn = rng.integers(60, size=(20_000, 60))
    plain = task.points[drawn].sum(1) / task.weight[drawn].sum(1)
    found = bootstrap({"a": task}, np.random.default_rng(0), n_bootstrap=20_000)
    assert found.se == pytest.approx(plain.std(ddof=1), rel=0.03)
    assert (found.low, found.high) == tuple(pytest.approx(q, abs=0.01) for q in np.quantile(plain, [0.025, 0.975]))
