"""Plans of micro-batches: every sample once, the same for everybody, little padding where that is promised."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_vlm.sampling import batch_plan, default_row_tokens, epoch_plan, padding_share

SAMPLERS = ("random", "buckets", "llava", "packing")
LENGTHS = [10 + (i * 37) % 200 for i in range(512)]


def plan(sampler, lengths, batch_size, **options):
    has_image = [i % 3 > 0 for i in range(len(lengths))]
    return epoch_plan(sampler, lengths, batch_size, has_image=has_image, **{"seed": 0, "epoch": 0, **options})


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=5, max_size=150),
    batch_size=st.integers(1, 9),
    ranks=st.integers(1, 5),
    accumulation=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_every_sample_is_in_one_micro_batch_and_every_rank_has_as_many(
    sampler, lengths, batch_size, ranks, accumulation, seed
):
    cut = plan(sampler, lengths, batch_size, ranks=ranks, accumulation=accumulation, seed=seed)
    assert sorted(i for batch in cut for i in batch) == list(range(len(lengths)))
    assert len(cut) % ranks == 0
    assert all(cut)
    assert cut == plan(sampler, lengths, batch_size, ranks=ranks, accumulation=accumulation, seed=seed)
    if sampler != "packing":
        assert max(map(len, cut)) <= batch_size + (len(lengths) % (batch_size * ranks) in range(1, ranks))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_epochs_and_seeds_differ(sampler):
    first = plan(sampler, LENGTHS, 8)
    assert first != plan(sampler, LENGTHS, 8, epoch=1)
    assert first != plan(sampler, LENGTHS, 8, seed=1)


@pytest.mark.parametrize("sampler", ["random", "buckets"])
def test_ranks_share_the_plan_of_one_process_with_larger_batches(sampler):
    one, four = plan(sampler, LENGTHS, 8), plan(sampler, LENGTHS, 2, ranks=4)
    assert [sorted(chain(*four[k : k + 4])) for k in range(0, len(four), 4)] == [sorted(batch) for batch in one]


def test_buckets_of_one_process_are_windows_of_sixteen_batches():
    """Written out: the order of the data of every run so far."""
    rng = np.random.default_rng([3, 1])
    order = rng.permutation(300)
    expected = []
    for start in range(0, 300, 128):
        part = sorted(order[start : start + 128].tolist(), key=lambda i: LENGTHS[i])
        expected += [part[i : i + 8] for i in range(0, len(part), 8)]
    expected = [expected[i] for i in rng.permutation(len(expected))]
    assert epoch_plan("buckets", LENGTHS[:300], 8, seed=3, epoch=1) == expected


def test_buckets_pad_little_and_llavas_grouping_as_much_as_chance():
    shares = {s: padding_share(plan(s, LENGTHS, 8), LENGTHS) for s in ("random", "buckets", "llava")}
    assert shares["buckets"] < 0.1
    assert shares["random"] > 0.35
    assert shares["llava"] > 0.35


def test_packed_rows_hold_as_much_as_fits():
    cut = plan("packing", LENGTHS, 8, row_tokens=512)
    filled = [sum(LENGTHS[i] for i in row) for row in cut]
    assert max(filled) <= 512
    assert sum(filled) / (512 * len(filled)) > 0.97


def test_a_sample_longer_than_a_row_has_a_row_of_its_own():
    cut = epoch_plan("packing", [5, 900, 5, 5], 2, seed=0, epoch=0, row_tokens=100)
    assert [1] in cut
    assert sorted(map(len, cut)) == [1, 3]


def test_packed_rows_see_as_many_samples_as_batches_do():
    assert default_row_tokens([10, 20, 30], 4) == 80
    cut = plan("packing", LENGTHS, 8)
    assert np.mean([len(row) for row in cut]) == pytest.approx(8, abs=0.3)


def test_llavas_steps_are_of_one_modality_with_the_longest_first():
    has_image = [i % 3 > 0 for i in range(len(LENGTHS))]
    cut = plan("llava", LENGTHS, 4, ranks=2, accumulation=2)
    steps = [list(chain(*cut[k : k + 4])) for k in range(0, len(cut), 4)]
    mixed = [len({has_image[i] for i in step}) > 1 for step in steps]
    assert not any(mixed[:-1])
    assert mixed[-1], "the incomplete steps of both modalities come last, together"
    totals = [[sum(LENGTHS[i] for i in batch) for batch in cut[k : k + 4]] for k in range(0, len(cut) - 8, 4)]
    assert all(max(t) - min(t) < 200 for t in totals), "ranks are balanced within a step"


def test_llava_needs_the_modality_and_an_unknown_sampler_is_named():
    with pytest.raises(ValueError, match="has_image"):
        epoch_plan("llava", [1, 2], 1, seed=0, epoch=0)
    with pytest.raises(ValueError, match="Known: random"):
        epoch_plan("sorted", [1, 2], 1, seed=0, epoch=0)
    with pytest.raises(ValueError, match="2 samples cannot be split over 3 ranks"):
        epoch_plan("buckets", [1, 2], 1, seed=0, epoch=0, ranks=3)


def test_a_fraction_of_an_epoch_is_the_first_part_of_its_batches():
    lengths = [5] * 100
    assert batch_plan(lengths, 10, 1.5, 0) == batch_plan(lengths, 10, 2, 0)[:15]
    assert len(batch_plan(lengths, 5, 0.5, 0, ranks=4)) % 4 == 0
