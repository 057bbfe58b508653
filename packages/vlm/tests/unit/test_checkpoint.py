"""Checkpoints exist as a whole or not at all; a byte that changes is noticed before it is used."""

import errno
import random

import pytest
import torch
from kd_vlm.checkpoint import MANIFEST, Checkpoints, StorageError, require_room
from kd_vlm.optim import Group, build_optimizer
from kd_vlm.state import STATE, load_state, save_state
from kd_vlm.tracking import IntegrityError
from torch.nn import Parameter


def saved(folder, *steps, keep=3):
    checkpoints = Checkpoints(folder, keep)
    for step in steps:
        checkpoints.save(step, lambda part, n=step: [(part / f"{i}.bin").write_bytes(bytes([n] * 64)) for i in (0, 1)])
    return checkpoints


def test_the_newest_whole_step_is_found_and_old_ones_go(tmp_path):
    checkpoints = saved(tmp_path, 2, 4, 6, 8)
    assert checkpoints.newest() == 8
    assert checkpoints.steps() == [4, 6, 8]
    assert Checkpoints(tmp_path / "none").newest() is None


def test_a_folder_without_a_manifest_is_no_step_whatever_its_name(tmp_path, caplog):
    """transformers' Trainer takes the highest number, empty or not."""
    checkpoints = saved(tmp_path, 2, 4)
    checkpoints.place(6).mkdir()
    assert checkpoints.newest() == 4
    assert "step-00000006 is damaged" in caplog.text
    assert (tmp_path / "damaged-step-00000006").is_dir()


def test_every_flipped_byte_a_missing_and_an_additional_file_are_noticed(tmp_path):
    checkpoints, draw = saved(tmp_path, 2), random.Random(0)
    place = checkpoints.place(2)
    for _ in range(100):
        file = draw.choice([place / "0.bin", place / "1.bin"])
        content = bytearray(file.read_bytes())
        content[draw.randrange(64)] ^= 1 << draw.randrange(8)
        whole = file.read_bytes()
        file.write_bytes(bytes(content))
        with pytest.raises(ValueError, match="is not what was written"):
            checkpoints.verify(2)
        file.write_bytes(whole)
    checkpoints.verify(2)
    (place / "evil.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="evil"):
        checkpoints.verify(2)
    (place / "evil.pt").unlink()
    (place / "1.bin").unlink()
    with pytest.raises(ValueError, match=r"1\.bin"):
        checkpoints.verify(2)


def test_where_all_are_damaged_nothing_begins_anew_in_silence(tmp_path):
    checkpoints = saved(tmp_path, 2, 4)
    for step in (2, 4):
        (checkpoints.place(step) / MANIFEST).write_text("{}")
    with pytest.raises(IntegrityError, match="All 2 checkpoints"):
        checkpoints.newest()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("I/O error: (os error 28)")])
def test_a_full_disk_leaves_the_step_before(tmp_path, error):
    checkpoints = saved(tmp_path, 2)

    def write(part):
        (part / "half").write_bytes(b"1")
        raise error

    with pytest.raises(StorageError, match="The checkpoint before it stands"):
        checkpoints.save(4, write)
    assert checkpoints.newest() == 2
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]
    with pytest.raises(StorageError, match="Make room"):
        require_room(tmp_path, 10**18)


def test_parameters_and_moments_come_back_and_another_model_is_refused(tmp_path):
    def begun():
        generator = torch.Generator().manual_seed(0)
        named = {"w": Parameter(torch.randn(3, 4, generator=generator)), "b": Parameter(torch.zeros(4))}
        return named, build_optimizer([Group(named, 0.1)], 0.0, 0.99)

    named, optimizer = begun()
    for _ in range(3):
        (named["w"].sin().sum() + named["b"].sum()).backward()
        optimizer.step()
    save_state(tmp_path, named, optimizer, 3)
    again, other = begun()
    load_state(tmp_path, again, other)
    for name in named:
        assert torch.equal(again[name], named[name])
        assert torch.equal(other.state[again[name]]["exp_avg_sq"], optimizer.state[named[name]]["exp_avg_sq"])
        assert float(other.state[again[name]]["step"]) == 3
    with pytest.raises(ValueError, match="another model"):
        load_state(tmp_path, {"w": again["w"]}, None)
    save_state(tmp_path, named, None, 3)
    with pytest.raises(ValueError, match="end of a stage"):
        load_state(tmp_path, again, other)
    assert (tmp_path / STATE).exists()
