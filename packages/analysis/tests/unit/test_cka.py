import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_analysis.cka import ESTIMATORS, difference, leave_one_out, linear_cka, null_z, with_interval
from kd_analysis.gram import gram_cka
from kd_analysis.moments import Moments, merge
from kd_analysis.streaming import CHUNK, moments, own, paired


def pair(n=40, dx=7, dy=5, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dx))
    return x + offset, x[:, :dy] + rng.standard_normal((n, dy)) - 2 * offset


def of(x, y):
    return moments([(x, y)])


def tree(states, rng):
    """Merge in a random order and shape."""
    states = list(states)
    while len(states) > 1:
        a, b = (states.pop(int(rng.integers(len(states)))) for _ in range(2))
        states.append(merge(a, b))
    return states[0]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(5, 40),
    dx=st.integers(1, 60),
    dy=st.integers(1, 12),
    cuts=st.lists(st.integers(1, 39), max_size=6),
    seed=st.integers(0, 10**6),
    offset=st.sampled_from([0.0, 10.0, 1e4]),
)
def test_any_split_order_and_merge_tree_gives_the_gram_value(n, dx, dy, cuts, seed, offset):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, dx)) + offset, rng.standard_normal((n, dy)) ** 3 - offset
    order = rng.permutation(n)
    edges = sorted({0, n, *(c for c in cuts if c < n)})
    state = tree((of(x[order[a:b]], y[order[a:b]]) for a, b in itertools.pairwise(edges)), rng)
    for estimator in ESTIMATORS:
        centred = gram_cka(x - offset, y + offset, estimator)
        assert linear_cka(state, estimator).value == pytest.approx(centred, abs=1e-7)


def test_one_row_at_a_time_equals_all_at_once():
    x, y = pair()
    singly = moments((x[i : i + 1], y[i : i + 1]) for i in range(len(x)))
    assert linear_cka(singly).value == pytest.approx(gram_cka(x, y), abs=1e-13)


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e6])
def test_features_far_from_zero_lose_no_digits(offset):
    x, y = pair()
    far = moments([(x[:9] + offset, y[:9]), (x[9:] + offset, y[9:])])
    assert linear_cka(far).value == pytest.approx(gram_cka(x, y), abs=1e-9)


def test_sorted_and_shuffled_rows_give_the_same():
    x, y = pair(60)
    order = np.argsort(x[:, 0])
    batches = [(x[order[i : i + 8]], y[order[i : i + 8]]) for i in range(0, 60, 8)]
    assert linear_cka(moments(batches)).value == pytest.approx(linear_cka(moments([(x, y)])).value, abs=1e-13)


def test_rotation_scale_and_shift_change_nothing_but_one_scaled_column_does():
    x, y = pair()
    base = linear_cka(moments([(x, y)])).value
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((7, 7)))[0]
    assert linear_cka(moments([(5 * x @ rotation - 3, y)])).value == pytest.approx(base, abs=1e-12)
    assert abs(linear_cka(moments([(x * np.array([100.0] + [1.0] * 6), y)])).value - base) > 0.01


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_encoder_is_equal_to_itself(estimator):
    x, _ = pair()
    assert linear_cka(moments([(x, x)]), estimator).value == pytest.approx(1)


def test_noise_is_near_zero_debiased_and_far_from_it_biased():
    rng = np.random.default_rng(7)
    state = moments([(rng.standard_normal((100, 400)), rng.standard_normal((100, 300)))])
    assert abs(null_z(linear_cka(state).value, 100)) < 5
    assert linear_cka(state, "biased").value > 0.7


def test_a_negative_value_is_not_clamped():
    values = [linear_cka(moments([pair(8, 3, 3, s)])).value for s in range(3)]
    rng = np.random.default_rng(0)
    noise = [linear_cka(moments([(rng.standard_normal((6, 9)), rng.standard_normal((6, 9)))])).value for _ in range(20)]
    assert min(noise) < 0 < max(values)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_images_give_nan_with_a_reason(n):
    x, y = pair(n)
    found = linear_cka(moments([(x, y)]))
    assert np.isnan(found.value)
    assert "at least 4 images" in found.reason


@pytest.mark.parametrize(("side", "word"), [(0, "first"), (1, "second")])
@pytest.mark.parametrize("constant", [0.0, 3.7, 1e6])
def test_dead_features_give_nan_and_say_whose(side, word, constant):
    features = list(pair())
    features[side] = np.full_like(features[side], constant)
    for estimator in ESTIMATORS:
        found = with_interval(moments([tuple(features)]), [tuple(features)], estimator)
        assert np.isnan(found.value)
        assert word in found.reason


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    x, y = pair()
    x[3, 2] = bad
    with pytest.raises(ValueError, match="finite"):
        moments([(x, y)])


def test_other_numbers_of_rows_and_other_widths_are_refused():
    x, y = pair()
    with pytest.raises(ValueError, match="same images"):
        of(x, y[:-1])
    with pytest.raises(ValueError, match="widths"):
        merge(of(x, y), of(x[:, :3], y))
    with pytest.raises(ValueError, match="same widths"):
        moments([(x[:5], y[:5]), (x[5:, :3], y[5:])])
    with pytest.raises(ValueError, match="at least one row"):
        moments([])
    with pytest.raises(ValueError, match="estimator"):
        linear_cka(moments([(x, y)]), "unbiased")


def test_the_second_pass_must_bring_the_same_rows():
    x, y = pair()
    with pytest.raises(ValueError, match="40 rows"):
        with_interval(moments([(x, y)]), [(x[:5], y[:5])])


def test_a_saved_state_resumes_and_holds_no_pickle(tmp_path):
    x, y = pair()
    first = of(x[:15], y[:15])
    first.save(tmp_path / "s.npz")
    loaded = Moments.load(tmp_path / "s.npz")
    for mine, theirs in ((first.x, loaded.x), (first.y, loaded.y)):
        assert mine.n == theirs.n
        np.testing.assert_array_equal(mine.mean, theirs.mean)
        np.testing.assert_array_equal(mine.joint.m, theirs.joint.m)
    resumed = merge(loaded, of(x[15:], y[15:]))
    assert linear_cka(resumed).value == pytest.approx(gram_cka(x, y), abs=1e-12)
    np.savez(tmp_path / "bad.npz", n=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="expected a state"):
        Moments.load(tmp_path / "bad.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match="expected a state"):
        Moments.load(tmp_path / "cut.npz")


def large(n=2 * CHUNK + 177, dx=128, dy=160):
    """Clusters in order, a spectrum that falls off, means far from zero: what real features look like."""
    rng = np.random.default_rng(4)
    place = np.sort(rng.integers(0, 30, n))
    hidden = rng.standard_normal((30, 16))[place] + rng.standard_normal((n, 16))
    decay = np.arange(1, 17) ** -0.7
    x = (hidden * decay) @ rng.standard_normal((16, dx)) + 0.3 * rng.standard_normal((n, dx))
    return x, (hidden * decay) @ rng.standard_normal((16, dy)) + 0.3 * rng.standard_normal((n, dy))


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e4])
def test_float32_products_stay_within_1e_8_of_float64_even_far_from_zero(offset):
    x, y = (z / z.std(axis=0) + offset for z in large())
    x, y = x.astype("float32"), y.astype("float32")
    exact = [linear_cka(moments([(x.astype(float), y.astype(float))]), e).value for e in ESTIMATORS]
    for size in (1000, 3000, len(x)):
        state = moments((x[i : i + size], y[i : i + size]) for i in range(0, len(x), size))
        found = [linear_cka(state, e).value for e in ESTIMATORS]
        np.testing.assert_allclose(found, exact, atol=1e-8, rtol=0)


def test_a_first_chunk_far_from_the_rest_costs_no_digits():
    x, y = large()
    x[:CHUNK] += 1e3
    single = moments([(x.astype("float32"), y.astype("float32"))])
    exact = moments([(x.astype("float32").astype(float), y.astype("float32").astype(float))])
    assert linear_cka(single).value == pytest.approx(linear_cka(exact).value, abs=1e-8)


def test_features_of_any_size_neither_vanish_nor_overflow():
    x, y = large(2000)
    base = linear_cka(moments([(x, y)])).value
    for factor in (1e-30, 1e25):
        state = moments([((x * factor).astype("float32"), y.astype("float32"))])
        assert linear_cka(state).value == pytest.approx(base, abs=1e-6)


def test_a_side_that_is_known_gives_the_same_pair():
    x, y = (z.astype("float32") for z in large())
    blocks = [(x[:100], y[:100]), (x[100:], y[100:])]
    known = paired(own([x]), own([y]), blocks)
    for estimator in ESTIMATORS:
        assert linear_cka(known, estimator).value == pytest.approx(
            linear_cka(moments(blocks), estimator).value, abs=1e-8
        )
    with pytest.raises(ValueError, match="same images"):
        paired(own([x]), own([y]), blocks[:1])


def test_the_difference_of_two_teachers_is_the_jackknife_of_the_difference():
    x, y = pair(60, 7, 5)
    other = y + 2 * np.random.default_rng(8).standard_normal(y.shape)
    states = [moments([(x, z)]) for z in (y, other)]
    left = [leave_one_out(s, [(x, z)])["debiased"] for s, z in zip(states, (y, other), strict=True)]
    found = difference(*(linear_cka(s) for s in states), *left)
    brute = np.array(
        [
            gram_cka(np.delete(x, i, 0), np.delete(y, i, 0)) - gram_cka(np.delete(x, i, 0), np.delete(other, i, 0))
            for i in range(60)
        ]
    )
    assert found.value == pytest.approx(gram_cka(x, y) - gram_cka(x, other), abs=1e-12)
    assert found.se == pytest.approx(np.sqrt(59 / 60 * ((brute - brute.mean()) ** 2).sum()), abs=1e-12)
    assert -1 <= found.correlation <= 1


def test_the_interval_covers_the_value_of_many_images():
    """Of 60 draws of 80 images, about 95 % of the intervals should hold the value of 20,000."""
    rng = np.random.default_rng(11)
    w = rng.standard_normal((12, 6))

    def draw(n):
        x = rng.standard_normal((n, 12)) * np.linspace(3, 0.5, 12)
        return x, x @ w + 4 * rng.standard_normal((n, 6))

    truth = linear_cka(moments([draw(20_000)])).value
    held = 0
    for _ in range(60):
        x, y = draw(80)
        found = with_interval(moments([(x, y)]), [(x, y)])
        held += found.low <= truth <= found.high
    assert held >= 50
