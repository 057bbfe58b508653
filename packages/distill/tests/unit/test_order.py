"""The order of the data: an exact permutation that needs no list."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_distill.order import CHUNK, STRATUM, WINDOW, Order, shuffled


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.integers(1, 9), st.integers(1, 9))
def test_every_place_has_its_own_pair_and_no_pair_is_missing(n, key, chunk, window):
    order = shuffled(np.arange(n), n, key, chunk=chunk, window=window)
    assert np.array_equal(np.sort(order), np.arange(n))


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(0, 9), st.data())
def test_what_stands_at_a_place_does_not_depend_on_what_else_is_asked_for(n, seed, data):
    order = Order(seed, (n,), (n,))
    asked = np.array(data.draw(st.lists(st.integers(0, 4 * n), min_size=1)))
    whole = order(np.arange(4 * n + 1))
    for got, all_of_them in zip(order(asked), whole, strict=True):
        assert np.array_equal(got, all_of_them[asked])


def test_a_hundred_million_pairs_are_permuted_without_a_list():
    n = 10**8
    places = np.linspace(0, n - 1, 1000, dtype=np.int64)
    indices, passes = Order(0, (n,), (n,))(places + 3 * n)
    assert len(set(indices.tolist())) == 1000
    assert indices.min() >= 0
    assert indices.max() < n
    assert set(passes.tolist()) == {3}


def test_epochs_and_seeds_have_their_own_orders():
    n = 1000
    orders = [Order(seed, (n,), (n,))(np.arange(n) + epoch * n)[0] for seed in (0, 1) for epoch in (0, 1)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).mean() < 0.02  # 1 / n is expected


@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_each_pair_is_first_equally_often_over_the_seeds(n):
    firsts = [int(Order(seed, (n,), (n,))(np.array([0]))[0][0]) for seed in range(1500)]
    expected = 1500 / n
    chi_square = ((np.bincount(firsts, minlength=n) - expected) ** 2 / expected).sum()
    assert chi_square < n - 1 + 5 * np.sqrt(2 * (n - 1))  # mean and five standard deviations of chi^2 with n-1 degrees


def test_neighbouring_places_are_not_neighbours_in_storage():
    n = 5 * CHUNK * WINDOW + 77
    order = shuffled(np.arange(n), n, 5)
    assert np.corrcoef(order[:-1], order[1:])[0, 1] < 0.3  # of one window, which is a part of the set
    first = order[:1000]
    assert np.corrcoef(np.arange(1000), first)[0, 1] == pytest.approx(0, abs=0.12)


def test_a_stretch_of_places_reads_few_stretches_of_the_files():
    n = 40 * CHUNK * WINDOW + 77
    for start in (0, n // 2):
        chunks = set((shuffled(np.arange(start, start + CHUNK * WINDOW), n, 1) // CHUNK).tolist())
        assert len(chunks) <= 2 * WINDOW + 1  # two windows at most, and the short chunk at the end


@given(st.integers(1, 40), st.integers(0, 200), st.sampled_from([1, 2, 3, 4, 6]))
def test_the_blocks_of_the_ranks_are_the_batch_of_one_process(n, step, world):
    order, batch = Order(3, (n,), (n,)), 12
    local = batch // world
    blocks = [order(step * batch + rank * local + np.arange(local)) for rank in range(world)]
    whole = order(step * batch + np.arange(batch))
    for column in (0, 1):
        assert np.array_equal(np.concatenate([b[column] for b in blocks]), whole[column])


@given(st.integers(2, 60), st.integers(1, 30), st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_resumed_anywhere_no_pair_is_lost_or_seen_twice(n, batch, kills):
    order, seen, step = Order(1, (n,), (n,)), [], 0
    steps = -(-3 * n // batch)
    for run in [*kills, steps]:  # each run goes on where the one before stopped
        for _ in range(min(run, steps - step)):
            seen += order(step * batch + np.arange(batch))[0].tolist()
            step += 1
    counts = np.bincount(seen[: 3 * n], minlength=n)
    assert (counts == 3).all()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(0.1, 3)), min_size=2, max_size=4), st.integers(0, 5), st.data()
)
def test_a_mix_gives_each_part_its_exact_share_of_every_epoch(parts, seed, data):
    sizes = tuple(n for n, _ in parts)
    draws = tuple(max(1, round(n * epochs)) for n, epochs in parts)
    order = Order(seed, sizes, draws)
    starts = np.cumsum([0, *sizes])
    seen = np.zeros(starts[-1], np.int64)
    for epoch in range(3):
        indices, _ = order(epoch * len(order) + np.arange(len(order)))
        seen += np.bincount(indices, minlength=starts[-1])
        for part, drawn in enumerate(draws):
            inside = (indices >= starts[part]) & (indices < starts[part + 1])
            assert inside.sum() == drawn
            of_part = seen[starts[part] : starts[part + 1]]
            assert of_part.max() - of_part.min() <= 1  # none a second time before all came once


def test_the_share_of_a_part_is_even_within_an_epoch():
    order = Order(0, (90_000, 10_000), (90_000, 10_000))
    indices, _ = order(np.arange(len(order)))
    shares = (indices.reshape(-1, 5 * 2000) >= 90_000).mean(axis=1)
    # whole strata hold their share to one draw; a stratum's cut ends vary by the draws of a binomial
    assert np.abs(shares - 0.1).max() < 5 * np.sqrt(0.09 * STRATUM) / 10_000


def test_the_pass_of_a_part_counts_its_own_rounds():
    order = Order(0, (10, 40), (20, 40))
    indices, passes = order(np.arange(len(order) * 2))
    assert set(passes[indices < 10].tolist()) == {0, 1, 2, 3}
    assert set(passes[indices >= 10].tolist()) == {0, 1}
