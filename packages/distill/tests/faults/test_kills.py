"""SIGKILL at random moments: the run ends as if nothing had happened."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from kd_distill.checkpoint import PART, Checkpoints

from packages.distill.tests.faults.life import (
    BATCH,
    PAIRS,
    STEPS,
    Life,
    forked,
    killed,
    live_through,
    live_twice,
    pairs_of,
    write_pairs,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Life:
    """A run that nobody disturbed, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    life = Life(folder, pairs_of(write_pairs(folder / "pairs")))
    life.live()
    return life


def seconds_of(whole: Life) -> float:
    """Of a whole run in a fork."""
    again = Life(whole.folder.with_name("timed"), whole.pairs)
    again.folder.mkdir(exist_ok=True)
    begin = time.monotonic()
    assert not killed(forked(again.live), 60)
    return time.monotonic() - begin


def assert_same(life: Life, whole: Life) -> None:
    """Weights, every loss that any life saw, and the samples of each step."""
    assert (life.folder / "hash").read_text() == (whole.folder / "hash").read_text()
    expected = {line["step"]: line for line in whole.trace()}
    seen = life.trace()
    assert {line["step"] for line in seen} == set(range(1, STEPS + 1))
    for line in seen:
        assert line == expected[line["step"]]
    per_epoch = PAIRS // BATCH
    last = {line["step"]: line["keys"] for line in seen}
    for epoch in range(STEPS // per_epoch):
        keys = Counter(k for step in range(per_epoch) for k in last[1 + epoch * per_epoch + step])
        assert set(keys.values()) == {1}
        assert len(keys) == PAIRS


def kill_runs(whole: Life, tmp_path: Path, kills: int, *, each: int, seed: int) -> int:
    draw, seconds, total, run = random.Random(seed), seconds_of(whole), 0, 0
    while total < kills:
        life = Life(tmp_path / f"{run}", whole.pairs)
        total += live_through(life, min(each, kills - total), draw, seconds)
        assert_same(life, whole)
        assert not list(life.checkpoints.folder.glob(f"{PART}*"))
        run += 1
    return total


def test_ten_kills_at_random_moments_change_nothing(whole, tmp_path):
    assert kill_runs(whole, tmp_path, 10, each=5, seed=1) == 10


@pytest.mark.faults
def test_two_hundred_kills_at_random_moments_change_nothing(whole, tmp_path):
    assert kill_runs(whole, tmp_path, 200, each=10, seed=2) == 200


def test_a_kill_after_which_random_numbers_are_not_restored_changes_the_weights(whole, tmp_path):
    """The control: were there no dropout, or were the comparison blind, the tests above would prove nothing."""
    restored, forgotten = Life(tmp_path / "restored", whole.pairs), Life(tmp_path / "forgotten", whole.pairs)
    live_twice(restored, restore_random=True)
    assert_same(restored, whole)
    live_twice(forgotten, restore_random=False)
    assert (forgotten.folder / "hash").read_text() != (whole.folder / "hash").read_text()
    with pytest.raises(AssertionError):
        assert_same(forgotten, whole)


def kills_of_a_writer(folder: Path, kills: int, seed: int) -> None:
    draw, checkpoints = random.Random(seed), Checkpoints(folder)
    tensors = {"weights": torch.arange(1 << 18, dtype=torch.float32)}
    checkpoints.save(1, tensors, {"step": 1})

    def write_for_ever() -> None:
        step = checkpoints.steps()[-1]
        while True:
            step += 1
            checkpoints.save(step, {"weights": tensors["weights"] + step}, {"step": step})

    for _ in range(kills):
        pid = forked(write_for_ever)
        assert killed(pid, draw.uniform(0.0, 0.05))
        saved = checkpoints.newest()
        assert saved.step == checkpoints.steps()[-1] == saved.values["step"]  # none is set aside: whole or absent
        if saved.step > 1:
            torch.testing.assert_close(saved.tensors["weights"], tensors["weights"] + saved.step, atol=0, rtol=0)
    assert saved.step > 1
    checkpoints.sweep()
    assert {p.name[:5] for p in folder.iterdir()} == {"step-"}


def test_kills_of_a_process_that_does_nothing_but_save_leave_whole_checkpoints(tmp_path):
    kills_of_a_writer(tmp_path, 12, seed=4)


@pytest.mark.faults
def test_a_hundred_and_fifty_kills_of_a_process_that_does_nothing_but_save_leave_whole_checkpoints(tmp_path):
    kills_of_a_writer(tmp_path, 150, seed=5)
