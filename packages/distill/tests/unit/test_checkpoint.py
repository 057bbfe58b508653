import logging
import random
import resource
from collections import namedtuple

import pytest
import torch
from kd_distill import checkpoint
from kd_distill.checkpoint import MANIFEST, PART, STATE, VALUES, Checkpoints, StorageError, require_room
from kd_distill.tracking import IntegrityError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7, dtype=torch.int64)}


@pytest.fixture
def two(tmp_path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20):
        checkpoints.save(step, TENSORS | {"step": torch.tensor(step)}, {"step": step})
    return checkpoints


def test_what_is_saved_is_read(two):
    saved = two.newest()
    assert (saved.step, saved.values) == (20, {"step": 20})
    torch.testing.assert_close(saved.tensors["a"], TENSORS["a"], atol=0, rtol=0)
    assert saved.tensors["b"] == 7


def test_the_last_ones_are_kept(two):
    two.save(30, TENSORS, {})
    assert two.steps() == [20, 30]


def test_tied_and_transposed_tensors_are_written_as_they_look(two):
    base = torch.arange(6.0).view(2, 3)
    two.save(30, {"x": base, "same": base, "turned": base.T}, {})
    saved = two.newest().tensors
    assert torch.equal(saved["same"], base)
    assert torch.equal(saved["turned"], base.T)


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path / "none").newest() is None


@pytest.mark.parametrize("name", [STATE, VALUES, MANIFEST])
def test_every_flipped_byte_is_noticed_and_the_step_before_is_taken(two, name, caplog):
    """A hundred flips over the three files: each is found, said, and costs one step."""
    place, draw = two.folder / "step-00000020", random.Random(0)
    whole = (place / name).read_bytes()
    for _ in range(34):
        at = draw.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << draw.randrange(8)
        (place / name).write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert two.newest().step == 10
        assert "step-00000020 is damaged" in caplog.text
        aside = two.folder / "damaged-step-00000020"
        aside.rename(place)
        (place / name).write_bytes(whole)
    assert two.newest().step == 20


@pytest.mark.parametrize("name", [STATE, VALUES, MANIFEST])
def test_a_step_that_lacks_a_file_is_no_checkpoint(two, name):
    (two.folder / "step-00000020" / name).unlink()
    assert two.newest().step == 10


def test_an_empty_folder_is_no_checkpoint(two):
    (two.folder / "step-00000030").mkdir()
    assert two.newest().step == 20


def test_when_all_are_damaged_it_is_an_error_and_not_a_fresh_start(two):
    for place in two.folder.iterdir():
        (place / STATE).write_bytes(b"")
    with pytest.raises(IntegrityError, match="All 2 checkpoints"):
        two.newest()


def test_what_a_killed_writer_left_is_swept(two):
    (two.folder / f"{PART}77-30").mkdir()
    (two.folder / f"{PART}77-30" / STATE).write_bytes(b"half")
    two.sweep()
    assert sorted(p.name for p in two.folder.iterdir()) == ["step-00000010", "step-00000020"]


@pytest.mark.parametrize("limit", [0, 200, 4096, 50_000])
def test_a_full_disk_leaves_the_last_checkpoint_and_says_what_is_needed(two, limit):
    """RLIMIT_FSIZE stands for the disk: writing past it fails as on a full one."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    big = {"weights": torch.zeros(1 << 16)}
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(StorageError, match=r"step-00000030: no room for a checkpoint of 0\.3 MB \(\d+ MB free"):
            two.save(30, big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert two.newest().step == 20
    assert sorted(p.name for p in two.folder.iterdir()) == ["step-00000010", "step-00000020"]
    two.save(30, big, {})
    assert two.newest().step == 30


def test_a_disk_without_room_for_two_checkpoints_is_refused_at_the_start(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: usage(10, 8, 2_000_000))
    require_room(tmp_path, 2_000_000)
    with pytest.raises(StorageError, match="need 3 MB, the disk has 2 MB free"):
        require_room(tmp_path, 3_000_000)


def test_a_write_that_fails_for_another_reason_keeps_its_reason(two):
    with pytest.raises(TypeError):
        two.save(30, TENSORS, {"not json": object()})
    assert two.newest().step == 20
    assert not list(two.folder.glob(f"{PART}*"))
