"""Batches: the same on any number of ranks and threads; what stands in for pairs that cannot be used."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from kd_distill.ahead import StalledError
from kd_distill.batch import Targets
from kd_distill.checking import check_all
from kd_distill.decode import decode
from kd_distill.ledger import Cause, Ledger, TooManyBadError, refuse_too_frequent
from kd_distill.pairs import Pairs
from kd_distill.shards import PairShards
from kd_distill.sources import Mix
from kd_distill.views import Preprocessing, crop_box

from packages.distill.tests.unit.pictures import jpeg, write_tar

N = 23
VIEW = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)


def tokenize(captions: list[str]) -> torch.Tensor:
    return torch.tensor([[len(c), sum(c.encode())] for c in captions])


def shard(path, bad: dict[int, bytes] | None = None, n: int = N):
    members = []
    for i in range(n):
        members += [(f"{i:03d}.jpg", (bad or {}).get(i, jpeg(i))), (f"{i:03d}.txt", f"picture {i}".encode())]
    write_tar(path / "00000.tar", members)
    return path


@pytest.fixture
def folder(tmp_path):
    return shard(tmp_path / "pairs")


def pairs_of(folder, **options) -> Pairs:
    source = PairShards(folder) if isinstance(folder, Path) else folder
    return Pairs(source, VIEW, tokenize, **{"seed": 0, "views": 3, "crop_area": 0.5} | options)


def steps(pairs: Pairs, start: int, stop: int, **options):
    return list(pairs.steps(start, stop, **{"batch_size": 6, "order_seed": 1} | options))


def same(one, other) -> bool:
    return one.keys == other.keys and torch.equal(one.images, other.images) and torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("world", [1, 2, 3, 6])
@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_ranks_and_threads_sees_the_same_batches(folder, world, workers):
    whole = steps(pairs_of(folder), 0, 9)  # over the borders of two epochs
    ranks = [steps(pairs_of(folder, workers=workers), 0, 9, rank=rank, world=world) for rank in range(world)]
    for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        assert sum((part.keys for part in parts), ()) == batch.keys
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


@pytest.mark.parametrize("start", range(0, 12, 2))
@pytest.mark.parametrize("world", [1, 2])
def test_resumed_at_any_step_on_other_ranks_the_rest_is_the_same(folder, start, world):
    whole = steps(pairs_of(folder), 0, 12)
    ranks = [steps(pairs_of(folder), start, 12, rank=rank, world=world) for rank in range(world)]
    for batch, parts in zip(whole[start:], zip(*ranks, strict=True), strict=True):
        assert sum((part.keys for part in parts), ()) == batch.keys
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


def test_no_pair_is_lost_at_the_end_of_an_epoch(folder):
    seen = [key for batch in steps(pairs_of(folder), 0, N) for key in batch.keys]  # N batches of 6 are 6 epochs
    assert len(seen) == 6 * N
    for epoch in range(6):
        assert len(set(seen[epoch * N : (epoch + 1) * N])) == N


def test_each_row_has_the_crop_of_its_pass_also_where_epochs_meet(folder):
    pairs = pairs_of(folder, views=3)
    batch = steps(pairs, 3, 4)[0]  # rows 18 to 23 of 23: the last is of the next epoch
    source = PairShards(folder)
    for row, key in enumerate(batch.keys):
        view = 0 if row < 5 else 1
        image = decode(source.image(int(key)))
        assert torch.equal(batch.images[row], VIEW([image], [crop_box(0, view, int(key), 0.5)])[0])


def test_two_models_see_the_same_crops_with_their_own_eyes(folder):
    larger = Preprocessing(24, (0.4,) * 3, (0.2,) * 3, "bilinear", "squash")
    pairs = pairs_of(folder, others=[(larger, lambda captions: torch.zeros(len(captions), 5))])
    alone = Pairs(PairShards(folder), larger, tokenize, seed=0, views=3, crop_area=0.5)
    for batch, expected in zip(steps(pairs, 2, 5), steps(alone, 2, 5), strict=True):
        assert torch.equal(batch.others[0].images, expected.images)
        assert batch.others[0].tokens.shape == (6, 5)
        assert batch.images.shape == (6, 3, 16, 16)


def test_a_batch_larger_than_an_epoch_and_ranks_that_do_not_divide_it_are_refused(folder):
    with pytest.raises(ValueError, match="holds 23 pairs an epoch, fewer than one batch of 24"):
        steps(pairs_of(folder), 0, 1, batch_size=24)
    with pytest.raises(ValueError, match="A batch of 6 does not divide among 4 processes"):
        steps(pairs_of(folder), 0, 1, world=4)


class Rows:
    """A cache whose embeddings say which row and view they are of."""

    def rows(self, indices: np.ndarray, views: np.ndarray) -> Targets:
        return Targets(torch.tensor([[float(i), float(v)] for i, v in zip(indices, views, strict=True)]))


def test_a_cache_is_asked_for_the_rows_that_are_in_the_batch(tmp_path):
    folder = shard(tmp_path / "pairs", {5: b"no image", 6: b"no image"})
    pairs = pairs_of(folder, caches=[Rows()], bad_limit=0.2)
    seen = set()
    for number, batch in enumerate(steps(pairs, 0, 8)):
        first = number * 6
        expected = [[float(key), float((first + row) // N % 3)] for row, key in enumerate(batch.keys)]
        assert batch.teachers[0].image.tolist() == expected
        assert batch.teachers[0].text is None
        seen |= set(batch.keys)
    assert seen == {f"{i:03d}" for i in range(N)} - {"005", "006"}


def test_a_bad_pair_is_replaced_by_the_next_good_one_in_its_place(folder, tmp_path):
    damaged = shard(tmp_path / "damaged", {7: jpeg(7)[:-50], 8: b"<html>", 22: b""})
    stand_in = {"007": "009", "008": "009", "022": "000"}
    good, bad = steps(pairs_of(folder), 0, 8), steps(pairs_of(damaged, bad_limit=0.2), 0, 8)
    for one, other in zip(good, bad, strict=True):
        assert other.keys == tuple(stand_in.get(key, key) for key in one.keys)
        kept = [row for row, key in enumerate(one.keys) if key not in stand_in]
        assert torch.equal(one.images[kept], other.images[kept])
        assert other.tokens[:, 1].tolist() == [sum(f"picture {int(key)}".encode()) for key in other.keys]


def test_the_ledger_names_each_bad_pair_once_and_outlives_the_run(tmp_path):
    folder = shard(tmp_path / "pairs", {7: jpeg(7)[:-50], 8: b"<html>"})
    first = steps(pairs_of(folder, bad_limit=0.2, workers=3), 0, 8)
    source = PairShards(folder)
    assert source.counts() == {Cause.TRUNCATED: 1, Cause.NOT_AN_IMAGE: 1}
    assert {e.key for e in source.ledger.rows.values()} == {"007", "008"}
    assert len(source.ledger.path.read_text().splitlines()) == 2
    asked = []
    source.image = lambda i, read=source.image: asked.append(i) or read(i)
    again = steps(pairs_of(source, bad_limit=0.2), 4, 8)
    assert all(same(one, other) for one, other in zip(first[4:], again, strict=True))
    assert not {7, 8} & set(asked)
    steps(pairs_of(folder, bad_limit=0.2), 0, 8)
    assert len(source.ledger.path.read_text().splitlines()) == 2


def test_ranks_stay_in_step_over_bad_pairs(tmp_path):
    whole = steps(pairs_of(shard(tmp_path / "one", {3: b"", 11: b""}), bad_limit=0.2), 0, 8)
    folder = shard(tmp_path / "two", {3: b"", 11: b""})
    ranks = [steps(pairs_of(folder, bad_limit=0.2), 0, 8, rank=rank, world=2) for rank in range(2)]
    for batch, parts in zip(whole, zip(*ranks, strict=True), strict=True):
        assert sum((part.keys for part in parts), ()) == batch.keys


def test_above_the_limit_the_run_stops_and_counts_by_cause(tmp_path):
    folder = shard(tmp_path / "pairs", {3: b"<html>", 4: jpeg(4)[:-50], 5: jpeg(5)[:-50]})
    steps(pairs_of(folder, bad_limit=3 / N), 0, 8)
    with pytest.raises(
        TooManyBadError, match=r"3 of 23 .* at most 12.00% \(data.bad_limit\): 2 damaged.*1 not an image"
    ):
        pairs_of(folder, bad_limit=0.12)


def test_the_limit_holds_in_the_middle_of_a_run(tmp_path):
    folder = shard(tmp_path / "pairs", {i: b"" for i in range(3, 8)})
    with pytest.raises(TooManyBadError, match=r"3 of 23 pairs"):
        steps(pairs_of(folder, bad_limit=0.1), 0, 8)


def test_a_large_set_that_is_all_bad_stops_at_once():
    for tried in range(1, 7):
        refuse_too_frequent({"empty caption": tried}, "pairs", tried, tried, 0.01)
    with pytest.raises(TooManyBadError, match=r"7 of the 7 pairs read so far .*: 7 empty caption"):
        refuse_too_frequent({"empty caption": 7}, "pairs", 7, 7, 0.01)


def test_a_large_set_below_the_limit_is_not_stopped_by_chance():
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(20):
        failed = np.cumsum(rng.random(20_000) < 0.009)
        for tried in range(1, 20_001, 7):
            refuse_too_frequent({}, "pairs", int(failed[tried - 1]), tried, 0.01)
            seen += 1
    assert seen == 20 * len(range(1, 20_001, 7))  # none of them was refused


def test_a_ledger_whose_last_line_was_cut_is_read(tmp_path):
    folder = shard(tmp_path / "pairs", {3: b"<html>", 4: b""})
    path = PairShards(folder).ledger.path
    check_all(PairShards(folder))
    path.write_bytes(path.read_bytes()[:-20])
    assert len(Ledger(path)) == 1
    assert check_all(PairShards(folder)) == {Cause.NOT_AN_IMAGE: 2}
    assert len(Ledger(path)) == 2


def test_checking_reads_everything_and_replaces_nothing(tmp_path):
    folder = shard(tmp_path / "pairs", {3: b"<html>", 22: jpeg(1)[:-9]})
    done = []
    assert check_all(PairShards(folder), workers=2, progress=done.append) == {Cause.NOT_AN_IMAGE: 1, Cause.TRUNCATED: 1}
    assert done == [N]


def test_a_mix_is_replaced_counted_and_refused_by_part(tmp_path):
    parts = [PairShards(shard(tmp_path / "good")), PairShards(shard(tmp_path / "bad", {0: b"", 1: b""}, n=5))]
    mix = Mix(parts, [1.0, 2.0])
    pairs = pairs_of(mix, bad_limit=0.5)
    assert len(pairs) == N + 10
    keys = [key for batch in steps(pairs, 0, 11) for key in batch.keys]
    assert len(keys) == 2 * (N + 10)
    assert mix.counts() == {Cause.NOT_AN_IMAGE: 2}
    assert len(parts[1].ledger) == 2
    with pytest.raises(TooManyBadError, match="2 of 5 pairs"):
        mix.refuse_too_many(0.3)


def test_all_pairs_in_order_come_once(folder):
    batches = list(pairs_of(folder).in_order(5, None))
    assert [key for batch in batches for key in batch.keys] == [f"{i:03d}" for i in range(N)]
    assert len(batches[-1].keys) == N % 5
    later = list(pairs_of(folder).in_order(5, None, start=10))
    assert all(same(one, other) for one, other in zip(batches[2:], later, strict=True))


def test_a_batch_is_a_value_that_dataclasses_can_copy(folder):
    batch = steps(pairs_of(folder), 0, 1)[0]
    assert same(dataclasses.replace(batch, teachers=()), batch)


def test_a_hung_batch_names_its_pairs(folder, monkeypatch):
    source, event = PairShards(folder), threading.Event()
    monkeypatch.setattr(source, "image", lambda index: event.wait(60))
    with pytest.raises(
        StalledError, match=r"The batch of step 0 \(.*pairs; \d{3}, \d{3}.*\) did not come within 0.1 s"
    ):
        steps(pairs_of(source, timeout=0.1), 0, 2)
    event.set()


class Endless:
    """A source of a billion pairs that are one picture; each third one is damaged."""

    name, parts = "endless", ((10**9, 10**9),)

    def __init__(self) -> None:
        self.rejected: set[int] = set()

    def __len__(self) -> int:
        return 10**9

    def key(self, index: int) -> str:
        return str(index)

    caption = key

    def image(self, index: int) -> bytes:
        return b"" if index % 3 == 0 else jpeg()

    def reject(self, index: int, bad: Exception) -> None:
        self.rejected.add(index)

    def is_rejected(self, index: int) -> bool:
        return index in self.rejected

    def counts(self) -> dict[str, int]:
        return {}

    def refuse_too_many(self, limit: float) -> None:
        pass


def test_a_billion_pairs_need_no_list_of_a_billion():
    """A list of them would not fit into memory."""
    pairs = pairs_of(Endless(), bad_limit=0.5)
    batch = steps(pairs, 10**8, 10**8 + 1)[0]
    assert len(batch.keys) == 6
    assert all(int(key) % 3 for key in batch.keys)
