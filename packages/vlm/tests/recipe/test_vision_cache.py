"""The cache of visual tokens on disk: equal to the tower, shared, resumable, checked, readable without this package."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kd_vlm import features as module
from kd_vlm import material
from kd_vlm.cli import app
from kd_vlm.distributed import Ranks
from kd_vlm.encoder import load_encoder, visual_tokens
from kd_vlm.features import about, cache_features, picture_digests
from kd_vlm.pictures import BLANK, decode_image, image_path
from kd_vlm.preprocess import padding
from kd_vlm.tracking import IntegrityError
from kd_vlm.vision_cache import VisionCache
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe


@pytest.fixture(scope="module")
def encoder(vit_folder):
    return load_encoder(vit_folder)


@pytest.fixture
def paths(world):
    return sorted((world / "images" / "a").iterdir())


def cached(encoder, paths, root, on_batch=lambda n: None, **options):
    return cache_features(
        encoder, paths, root=root, on_batch=on_batch, **{"memory_limit": 0, "batch_size": 5, **options}
    )


def folder_of(root):
    (folder,) = (p for p in root.iterdir() if p.is_dir())
    return folder


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0), ("fp16", 2e-3), ("bf16", 2e-2)])
def test_what_is_read_is_what_the_tower_gives(encoder, paths, tmp_path, precision, tolerance):
    memory = cached(encoder, paths, tmp_path, memory_limit=10**9)
    assert not list(tmp_path.iterdir()), "a small set stays in memory"
    mapped = cached(encoder, paths, tmp_path, precision=precision, workers=2)
    assert isinstance(mapped.parts[0], np.memmap)
    assert mapped.shape == memory.shape == (encoder.n_tokens, encoder.width)
    assert mapped.of([]) is None
    pixels = encoder.processor([decode_image(p) for p in paths], return_tensors="pt")["pixel_values"]
    expected = visual_tokens(encoder, pixels)
    for features in (memory, mapped):
        torch.testing.assert_close(features.of(paths), expected, atol=1e-6 + tolerance, rtol=tolerance)
    torch.testing.assert_close(mapped.of(paths[3:6]), memory.of(paths[3:6]), atol=tolerance, rtol=tolerance)
    assert np.array_equal(memory.sample(), memory.parts[0])
    rounded = cached(encoder, paths, tmp_path, memory_limit=10**9, precision=precision)
    assert torch.equal(rounded.of(paths), mapped.of(paths)), "it does not matter where they are kept"
    assert len(mapped.sample(limit=4 * 2 * encoder.n_tokens * encoder.width)) == 2


def test_the_same_picture_is_computed_once_whoever_asks_and_whatever_its_name(encoder, paths, tmp_path):
    counts = []
    cached(encoder, paths[:7], tmp_path / "root", counts.append)
    shutil.copy(paths[2], tmp_path / "copy.png")
    features = cached(encoder, [*paths, tmp_path / "copy.png"], tmp_path / "root", counts.append)
    assert torch.equal(features.of(paths[2:3]), features.of([tmp_path / "copy.png"]))
    assert len(VisionCache.create(tmp_path / "root", about(encoder), **shape(encoder)).index) == len(paths)
    assert len(list((tmp_path / "root").iterdir())) == 1


def shape(encoder, precision="fp32"):
    return {"tokens": encoder.n_tokens, "width": encoder.width, "precision": precision}


def test_another_tower_preprocessing_feature_or_precision_has_a_folder_of_its_own(
    encoder, resnet_folder, vit_folder, paths, tmp_path
):
    other = load_encoder(vit_folder)
    with torch.no_grad():
        next(other.tower.parameters()).flatten()[0] += 1e-3
    other_mean = load_encoder(vit_folder)
    other_mean.processor.image_mean = [0.5, 0.5, 0.5]
    padded = replace(encoder, processor=padding(encoder.processor))
    for one in (encoder, load_encoder(vit_folder), other, other_mean, padded, load_encoder(vit_folder, layer=-3)):
        cached(one, paths[:2], tmp_path)
    cached(load_encoder(resnet_folder), paths[:2], tmp_path)
    cached(encoder, paths[:2], tmp_path, precision="bf16")
    assert len(list(tmp_path.iterdir())) == 7
    assert about(encoder, "cuda:1") == {**about(encoder), "device": "cuda"}, "a GPU rounds otherwise"
    assert about(encoder, "cpu") == about(encoder), "caches that stand are found"


def test_a_run_computes_on_its_device_and_decodes_with_its_workers(encoder, paths, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(material, "cache_features", lambda *arguments, **options: given.update(options))
    one = SimpleNamespace(samples=[], pictures=[paths])
    ours = SimpleNamespace(
        corpora={"pretrain": one, "finetune": one},
        test=one,
        towers={"pretrain": encoder, "finetune": encoder},
        visual_precision="fp32",
    )
    material.features_of(ours, tmp_path, 0, Ranks(device=torch.device("cuda", 1)), 8)
    assert (given["device"], given["workers"]) == ("cuda:1", 8)


class KilledError(Exception):
    pass


def test_an_interrupted_cache_goes_on_and_ends_as_if_nothing_had_happened(encoder, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 4 * encoder.n_tokens * encoder.width * 4)
    whole = cached(encoder, paths, tmp_path / "whole", batch_size=2)
    seen = []

    def kill(n):
        seen.append(n)
        if sum(seen) >= 7:
            raise KilledError

    with pytest.raises(KilledError):
        cached(encoder, paths, tmp_path / "root", kill, batch_size=2)
    folder = folder_of(tmp_path / "root")
    assert len(json.loads((folder / "shards.json").read_text())["shards"]) == 1
    (folder / "shard-00001.safetensors").write_bytes(b"half a shard that was never listed")
    again = cached(encoder, paths, tmp_path / "root", seen.append, batch_size=2)
    assert seen[5] == 4, "those of the finished shard are not computed again"
    assert torch.equal(again.of(paths), whole.of(paths))


def test_writers_at_the_same_time_share_the_work(encoder, paths, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        parts = (paths[:8], paths[4:], paths)
        found = list(pool.map(lambda part: cached(encoder, part, tmp_path), parts))
    cache = VisionCache.create(tmp_path, about(encoder), **shape(encoder))
    assert sum(len(shard.images) for shard in cache.shards) == len(paths)
    assert torch.equal(found[0].of(paths[4:8]), found[1].of(paths[4:8]))


def test_a_damaged_shard_is_found(encoder, paths, tmp_path):
    cached(encoder, paths, tmp_path)
    cache = VisionCache.create(tmp_path, about(encoder), **shape(encoder))
    assert cache.verify() == len(paths)
    shard = folder_of(tmp_path) / "shard-00000.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="digest"):
        cache.verify()
    for damage in (content[:-7], b"\xff" * len(content)):
        shard.write_bytes(damage)
        with pytest.raises(IntegrityError):
            cached(encoder, paths, tmp_path)
    shard.unlink()
    with pytest.raises(IntegrityError):
        cached(encoder, paths, tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_others_read_it_with_safetensors_and_json_alone(encoder, paths, tmp_path, precision):
    """As the contract describes it."""
    features = cached(encoder, paths, tmp_path, precision=precision)
    folder = folder_of(tmp_path)
    described = json.loads((folder / "cache.json").read_text())
    assert described["of"]["feature"]["layer"] == -2
    entry = json.loads((folder / "shards.json").read_text())["shards"][0]
    tensors = load_file(folder / entry["file"])
    row = [bytes(image.tolist()).hex() for image in tensors["images"]].index(picture_digests(paths[4:5])[0])
    assert torch.equal(tensors["tokens"][row].float(), features.of(paths[4:5])[0])
    with safe_open(folder / entry["file"], framework="pt") as file:
        assert file.get_slice("tokens").get_shape() == [len(paths), *features.shape]


def test_fp16_that_overflows_is_refused(encoder, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "visual_tokens", lambda e, pixels: visual_tokens(e, pixels) * 1e6)
    for limit in (0, 10**9):
        with pytest.raises(ValueError, match="bf16 or fp32"):
            cached(encoder, paths, tmp_path, precision="fp16", memory_limit=limit)
        cached(encoder, paths, tmp_path, precision="bf16", memory_limit=limit)


def test_the_grey_picture_has_tokens_too(encoder, world, paths, tmp_path):
    grey = image_path(world / "images", BLANK)
    for limit in (0, 10**9):
        features = cached(encoder, [grey, paths[0]], tmp_path, memory_limit=limit)
        assert torch.isfinite(features.of([grey])).all()


def test_a_picture_that_does_not_decode_says_what_to_do(encoder, paths, tmp_path):
    (tmp_path / "half.png").write_bytes(paths[0].read_bytes()[:300])
    with pytest.raises(ValueError, match=r"half\.png: not a picture.*vlm validate"):
        cached(encoder, [paths[1], tmp_path / "half.png"], tmp_path / "root", workers=2)


def test_the_command_lists_caches_and_finds_damage(encoder, paths, tmp_path):
    call = CliRunner().invoke
    assert call(app, ["caches", str(tmp_path)]).exit_code == 2
    cached(encoder, paths, tmp_path, precision="bf16")
    said = call(app, ["caches", str(tmp_path), "--verify"])
    assert said.exit_code == 0, said.output
    assert f"12 pictures of {encoder.n_tokens} x {encoder.width} in bf16" in said.output
    shard = folder_of(tmp_path) / "shard-00000.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert call(app, ["caches", str(tmp_path)]).exit_code == 0
    assert call(app, ["caches", str(tmp_path), "--verify"]).exit_code == 5
    (folder_of(tmp_path) / "cache.json").write_text('{"schema": "other"}')
    assert call(app, ["caches", str(tmp_path)]).exit_code == 2
