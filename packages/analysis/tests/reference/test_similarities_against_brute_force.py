"""Every other similarity against numbers from brute force in float64, on the features of the neighbouring test."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from kd_analysis import dissimilarity, gram, minibatch, neighbours, shape, subspaces
from kd_analysis.cka import linear_cka, with_interval
from kd_analysis.streaming import moments

KNOWN = json.loads(Path(__file__).with_name("similarities.json").read_text())
SMALL, TALL = KNOWN["arithmetic"], KNOWN["tall"]


def arithmetic():
    i, j = np.arange(1, 13)[:, None], np.arange(1, 5)
    x = np.sin(i * j) + 0.1 * i * j
    return x, np.cos(i * (np.arange(1, 4) + 1)) + 0.2 * x[:, :1] * np.arange(1, 4)


def tall():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 24))
    y = x @ (rng.standard_normal((24, 16)) / np.sqrt(24)) + rng.standard_normal((400, 16))
    return x + 3, y - 6


x, y = arithmetic()
STATE = moments((x[i : i + 1], y[i : i + 1]) for i in range(12))

FROM_MOMENTS = {
    "procrustes_nuc": lambda: shape.procrustes(STATE).value,
    "procrustes_d2": lambda: 2 - 2 * shape.procrustes(STATE).value,
    "procrustes_angle": lambda: math.acos(shape.procrustes(STATE).value),
    "cca_mean": lambda: subspaces.cca(STATE).value,
    "svcca_0.99": lambda: subspaces.svcca(STATE, 0.99).value,
    "pwcca_x": lambda: subspaces.pwcca(STATE, "x").value,
    "pwcca_y": lambda: subspaces.pwcca(STATE, "y").value,
    "r2_lr_x_from_y": lambda: subspaces.linear_r2(STATE, "x").value,
    "perm_mean_cka": lambda: shape.biased_by_chance(STATE),
    "PR_x": lambda: shape.participation_ratio(STATE.x),
    "PR_y": lambda: shape.participation_ratio(STATE.y),
}
FROM_ROWS = {
    "mutual_knn_k3_cosine": lambda: neighbours.mutual_knn(x, y, 3).value,
    "mutual_knn_k3_l2": lambda: neighbours.mutual_knn(x, y, 3, "l2").value,
    "jaccard_knn_k3_cosine": lambda: neighbours.jaccard_knn(x, y, 3).value,
    "cknna_k4": lambda: neighbours.cknna(x, y, 4).value,
    "rsa_corr_spearman": lambda: dissimilarity.rsa(x, y).value,
    "rsa_euclid_pearson": lambda: dissimilarity.rsa(x, y, "euclidean", "pearson").value,
    "distance_correlation_sq": lambda: dissimilarity.distance_correlation_squared(x, y).value,
}


@pytest.mark.parametrize("name", [*FROM_MOMENTS, *FROM_ROWS])
def test_a_similarity_has_the_brute_force_value(name):
    tolerance = 1e-7 if name == "cknna_k4" else 1e-9  # the authors' CKNNA adds 1e-6 to the denominator, 6e-8 here
    assert (FROM_MOMENTS | FROM_ROWS)[name]() == pytest.approx(SMALL[name], abs=tolerance)


@pytest.mark.parametrize("name", [name for name in SMALL if name.startswith("cka_rbf")])
def test_rbf_cka_has_the_brute_force_value(name):
    median, fraction, estimator = name.removeprefix("cka_rbf_").split("_")
    K, L = (gram.rbf_gram(z, float(fraction), median=median).gram for z in (x, y))
    assert gram.kernel_cka(K, L, estimator).value == pytest.approx(SMALL[name], abs=1e-9)


@pytest.mark.parametrize("name", [name for name in TALL if name.startswith("minibatch")])
def test_the_minibatch_estimate_has_the_brute_force_value(name):
    a, b = tall()
    size, weights = name.removeprefix("minibatch_bs").removesuffix("_droplast").split("_", 1)
    stop = len(a) - len(a) % int(size) if name.endswith("droplast") else len(a)
    batches = [(a[i : i + int(size)], b[i : i + int(size)]) for i in range(0, stop, int(size))]
    found = minibatch.minibatch_cka(batches, {"equal": "equal", "sum_t": "pairs", "size": "size"}[weights])
    assert found.value == pytest.approx(TALL[name], abs=1e-9)


def test_what_streams_on_the_tall_pair():
    a, b = tall()
    state = moments((a[i : i + 7], b[i : i + 7]) for i in range(0, 400, 7))
    assert shape.procrustes(state).value == pytest.approx(TALL["procrustes_nuc"], abs=1e-9)
    assert shape.participation_ratio(state.x) == pytest.approx(TALL["PR_x"], abs=1e-9)
    assert shape.biased_by_chance(state) == pytest.approx(TALL["perm_mean_biased"], abs=1e-9)
    assert neighbours.mutual_knn(a, b, 10).value == pytest.approx(TALL["mutual_knn_k10"], abs=1e-9)
    full, _, se = TALL["jack_debiased"]
    assert with_interval(state, [(a, b)]).se == pytest.approx(se, abs=1e-9)
    assert linear_cka(state).value == pytest.approx(full, abs=1e-9)
