"""The files of a teacher's cache: written once, whole, verified, refused where they are of something else."""

import dataclasses
import json
import shutil
from typing import get_args

import numpy as np
import pytest
from kd_distill.building import Work, build
from kd_distill.cache import MANIFEST, CacheInfo, TeacherCache, blocks, read_manifest
from kd_distill.lock import LockHeldError, sole_writer
from kd_distill.precision import Precision
from kd_distill.teaching import CLOSE
from kd_distill.tracking import IntegrityError

INFO = CacheInfo(
    teacher={"schema": "kd-ref/1", "kind": "teacher", "name": "teacher-x", "sha256": "0" * 64},
    preprocessing={"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"},
    tokenizer="clip:lower:77",
    precision="fp32",
    width=6,
    scale=100.0,
    bias=-10.0,
    text=True,
    grid=(1, 2),
    patch_width=3,
    patch_layer="last",
    data_digest="d",
    pairs=11,
    views=3,
    crop_area=0.9,
    crop_seed=0,
    rows=4,
)


def embedding(kind: str, view: int | None, index: int) -> np.ndarray:
    """What the made-up teacher says of one pair: numbers that float16 holds, other ones for every pair and view."""
    base = 32.0 * (view or 0) + index + 1
    return np.full((2, 3), base) if kind == "patches" else np.append(np.eye(5)[index % 5] * base, 1.0)


class Teacher:
    """Computes blocks and keeps count; dies after `dies_after` of them."""

    def __init__(self, info: CacheInfo = INFO, dies_after: int | None = None) -> None:
        self.info, self.dies_after, self.computed = info, dies_after, []

    def __call__(self, block):
        if len(self.computed) == self.dies_after:
            raise KeyboardInterrupt
        self.computed.append((block.view, block.number))
        kinds = ("text",) if block.view is None else ("image", *(("patches",) if self.info.grid else ()))
        rows = range(block.start, block.stop)
        return {block.file(k): np.stack([embedding(k, block.view, i) for i in rows]) for k in kinds}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "caches" / "teacher-x"


def other(**changes) -> CacheInfo:
    return INFO.model_copy(update=changes)


def unit(rows: list[np.ndarray]) -> np.ndarray:
    array = np.stack(rows)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_rows_are_those_of_each_pair_in_its_view_across_files(folder):
    assert build(folder, INFO, Teacher())
    indices, views = np.array([10, 0, 4, 4, 3]), np.array([2, 0, 1, 2, 0])
    targets = TeacherCache(folder).rows(indices, views)
    places = list(zip(views, indices, strict=True))
    np.testing.assert_allclose(targets.image.numpy(), unit([embedding("image", v, i) for v, i in places]), atol=1e-7)
    np.testing.assert_allclose(targets.text.numpy(), unit([embedding("text", None, i) for i in indices]), atol=1e-7)
    np.testing.assert_array_equal(targets.patches.numpy(), [embedding("patches", v, i) for v, i in places])
    one_view = TeacherCache(folder).rows(indices, 1)
    np.testing.assert_allclose(one_view.image.numpy(), unit([embedding("image", 1, i) for i in indices]), atol=1e-7)


def test_the_teacher_is_described_with_its_bias_and_grid(folder):
    build(folder, INFO, Teacher())
    info = TeacherCache(folder).teacher
    assert (info.name, info.width, info.scale, info.bias, info.grid, info.patch_width) == (
        "teacher-x",
        6,
        100.0,
        -10.0,
        (1, 2),
        3,
    )


def test_a_cache_without_captions_and_patches_serves_images(folder):
    info = other(text=False, tokenizer=None, grid=None, patch_width=None, patch_layer=None)
    build(folder, info, Teacher(info))
    targets = TeacherCache(folder).rows(np.array([7]), 0)
    assert targets.text is None
    assert targets.patches is None
    assert targets.image.shape == (1, 6)


@pytest.mark.parametrize("done", range(13))
def test_a_build_that_died_computes_only_what_is_missing(folder, done):
    whole = list(blocks(INFO))
    assert len(whole) == 12
    first, second = Teacher(dies_after=done), Teacher()
    if done < len(whole):
        with pytest.raises(KeyboardInterrupt):
            build(folder, INFO, first)
        assert not folder.exists()
    assert build(folder, INFO, second)
    assert sorted(first.computed + second.computed, key=str) == sorted(((b.view, b.number) for b in whole), key=str)
    assert TeacherCache(folder).verify() == 21  # 3 of text, 9 of images, 9 of patches
    assert not Work(folder, INFO).own.exists()


def test_a_file_that_was_damaged_before_the_restart_is_computed_again(folder):
    with pytest.raises(KeyboardInterrupt):
        build(folder, INFO, Teacher(dies_after=5))
    file = next(Work(folder, INFO).data.glob("text-000001.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    again = Teacher()
    build(folder, INFO, again)
    assert (None, 1) in again.computed
    assert len(again.computed) == 12 - 5 + 1
    TeacherCache(folder).verify()


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(folder, monkeypatch):
    build(folder, other(views=1), Teacher())
    from pathlib import Path

    rename = Path.rename

    def die(self, target):
        if self.name == "data":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            build(folder, INFO, Teacher(), replace=True)
    again = Teacher()
    assert build(folder, INFO, again)
    assert again.computed == []
    assert read_manifest(folder)[0] == INFO


def test_processes_that_share_the_work_give_the_cache_of_one(folder, tmp_path):
    build(tmp_path / "alone" / "teacher-x", INFO, Teacher())
    teachers = [Teacher() for _ in range(3)]
    ends = [build(folder, INFO, t, part=(i, 3)) for i, t in enumerate(teachers, 1)]
    assert ends == [False, False, True]
    assert sum(len(t.computed) for t in teachers) == 12
    assert (folder / MANIFEST).read_bytes() == (tmp_path / "alone" / "teacher-x" / MANIFEST).read_bytes()


def test_two_processes_with_one_part_are_refused(folder):
    work = Work(folder, INFO)
    work.own.mkdir(parents=True)
    with sole_writer(work.own / "1-of-1"), pytest.raises(LockHeldError):
        build(folder, INFO, Teacher())


@pytest.mark.parametrize("part", [(0, 2), (3, 2)])
def test_a_part_that_does_not_exist_is_refused(folder, part):
    with pytest.raises(ValueError, match="Expected a part i/n with i from 1 to n"):
        build(folder, INFO, Teacher(), part=part)


def test_a_complete_cache_is_kept(folder):
    build(folder, INFO, Teacher())
    again = Teacher()
    assert build(folder, INFO, again)
    assert again.computed == []


CHANGES = {
    "teacher": INFO.teacher | {"sha256": "1" * 64},
    "preprocessing": INFO.preprocessing | {"resize_mode": "shortest"},
    "tokenizer": "clip:lower:64",
    "precision": "bf16",
    "scale": 99.0,
    "bias": 0.0,
    "grid": (2, 1),
    "data_digest": "e",
    "views": 2,
    "crop_area": 0.8,
    "crop_seed": 1,
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_cache_of_something_else_is_refused_and_the_field_is_named(folder, field):
    build(folder, INFO, Teacher())
    changed = other(**{field: CHANGES[field]})
    with pytest.raises(ValueError, match=rf"is of something else \({field}: cache .*expected") as error:
        build(folder, changed, Teacher(changed))
    assert "; " not in str(error.value).split("(", 1)[1].split(")")[0]  # no other field
    assert read_manifest(folder)[0] == INFO
    assert build(folder, changed, Teacher(changed), replace=True)
    assert read_manifest(folder)[0] == changed


def test_every_flipped_byte_is_noticed_before_it_is_used(folder, rng):
    """F06: 100 flips of one bit, each in a file drawn without regard to its size, so that the manifest is hit too."""
    build(folder, INFO, Teacher())
    files = sorted(folder.iterdir())
    everything = (np.repeat(np.arange(11), 3), np.tile(np.arange(3), 11))
    for _ in range(100):
        file = files[rng.integers(len(files))]
        content = bytearray(file.read_bytes())
        place, bit = rng.integers(len(content)), rng.integers(8)
        content[place] ^= 1 << bit
        file.write_bytes(content)
        with pytest.raises(IntegrityError):
            TeacherCache(folder).rows(*everything)
        content[place] ^= 1 << bit
        file.write_bytes(content)
    TeacherCache(folder).rows(*everything)


def test_a_missing_file_is_named(folder):
    build(folder, INFO, Teacher())
    (folder / "image-001-000002.npy").unlink()
    cache = TeacherCache(folder)
    cache.rows(np.array([0]), 1)
    with pytest.raises(IntegrityError, match=r"image-001-000002.npy: expected sha256 .*got no such file"):
        cache.rows(np.array([10]), 1)


def test_a_cache_of_an_older_format_is_refused(folder):
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"schema": "kd-cache/1"}))
    with pytest.raises(ValueError, match="older format kd-cache/1"):
        TeacherCache(folder)


def test_no_cache_says_what_writes_one(folder):
    with pytest.raises(FileNotFoundError, match="`distill cache` writes it"):
        TeacherCache(folder)


def test_embeddings_that_are_not_finite_in_float16_are_refused_with_their_pair(folder):
    def overflows(block):
        arrays = Teacher()(block)
        for name, array in arrays.items():
            if name == "patches-002-000001.npy":
                array[1] = 70000.0
        return arrays

    with pytest.raises(FloatingPointError, match="1 rows are not finite in float16, the first of pair 5"):
        build(folder, INFO, overflows)
    assert not folder.exists()


def test_arrays_of_another_shape_are_refused(folder):
    with pytest.raises(ValueError, match=r"expected an array of shape \(4, 5\), got \(4, 6\)"):
        build(folder, other(width=5), Teacher())


def test_leftovers_of_killed_processes_do_not_get_into_the_cache(folder):
    with pytest.raises(KeyboardInterrupt):
        build(folder, INFO, Teacher(dies_after=2))
    (Work(folder, INFO).data / "text-000000.npy.123.part").write_bytes(b"half")
    build(folder, INFO, Teacher())
    assert {f.name for f in folder.iterdir()} == {MANIFEST, *read_manifest(folder)[1]}


def test_a_cache_that_was_copied_is_the_same_cache(folder, tmp_path):
    build(folder, INFO, Teacher())
    shutil.copytree(folder, tmp_path / "copy")
    copy = TeacherCache(tmp_path / "copy")
    assert copy.info.digest == INFO.digest
    assert dataclasses.astuple(copy.rows(np.array([3]), 0))[0].shape == (1, 6)


def test_a_cache_of_any_precision_can_be_verified():
    assert CLOSE.keys() == set(get_args(Precision))  # fp16 was missing, and verifying such a cache ended in a KeyError
