"""A cache of visual tokens that one package wrote is read by the others."""

import hashlib
import json

import numpy as np
import pytest
import torch
from kd_analysis import vlms
from kd_analysis.cli import app
from kd_evalsuite.models.vision_cache import VisionCache as Evaluation
from kd_vlm.assembly import assemble, save_vlm
from kd_vlm.encoder import load_encoder
from kd_vlm.features import cache_features
from kd_vlm.lm import build_model, train_tokenizer
from kd_vlm.vision_cache import VisionCache as Training
from PIL import Image
from typer.testing import CliRunner

from packages.vlm.tests.conftest import RESNET, VIT, texts, write_encoder

ABOUT = {"tower_sha256": "0" * 64, "preprocessing": {"size": {"height": 8}}, "feature": {"kind": "clip", "layer": -2}}
DIGESTS = [hashlib.sha256(bytes([k])).hexdigest() for k in range(3)]
TOKENS = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2)


def test_evaluation_reads_what_training_wrote(tmp_path):
    written = Training.create(tmp_path, ABOUT, tokens=4, width=2, precision="fp32")
    with written.writing():
        written.append(DIGESTS, TOKENS)
    read = Evaluation(tmp_path, ABOUT, torch.float32)
    assert all(torch.equal(read.read(d), torch.from_numpy(TOKENS[k])) for k, d in enumerate(DIGESTS))
    assert read.read("f" * 64) is None
    assert Evaluation(tmp_path, ABOUT, torch.bfloat16).read(DIGESTS[0]) is None
    assert Evaluation(tmp_path, {**ABOUT, "tower_sha256": "1" * 64}, torch.float32).read(DIGESTS[0]) is None


def test_training_reads_what_evaluation_wrote_into_the_same_folder(tmp_path):
    for k, digest in enumerate(DIGESTS):
        written = Evaluation(tmp_path, ABOUT, torch.float32)
        written.write({digest: torch.from_numpy(TOKENS[k])})
        written.flush()
    read = Training.create(tmp_path, ABOUT, tokens=4, width=2, precision="fp32")
    assert read.verify() == 3
    assert not read.missing(DIGESTS)
    assert [len(shard.tokens) for shard in read.shards] == [1, 1, 1]
    assert np.array_equal(np.concatenate([shard.tokens for shard in read.shards]), TOKENS)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two encoders, a VLM of each (a Llava and a FastVLM), and twelve pictures."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(texts(), vocab_size=400)
    shape = {"width": 32, "layers": 1, "heads": 2, "kv_heads": 1, "mlp_width": 64, "max_positions": 512}
    build_model(tokenizer, **shape, generator=torch.Generator().manual_seed(0)).save_pretrained(root / "lm")
    tokenizer.save_pretrained(root / "lm")
    encoders = {}
    for name, vision in (("vlm-a", VIT), ("vlm-b", RESNET)):
        encoders[name] = load_encoder(write_encoder(root / f"encoder-{name}", vision))
        save_vlm(assemble(encoders[name], root / "lm", torch.Generator().manual_seed(1)), root / name)
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    for k in range(12):
        pixels = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(root / "images" / f"{k:02d}.png")
    return root, encoders


def similarities(root, out, *options):
    """CKA of the two VLMs at every tap that they have, by tap and estimator."""
    command = ["cka", "--student", root / "vlm-a", "--teacher", root / "vlm-b", "--images", root / "images"]
    for tap in ("patch_mean", "patch_tokens", "vlm_mean"):
        command += ["--tap", tap]
    done = CliRunner().invoke(app, list(map(str, [*command, "--store", out / "store", "--out", out, *options])))
    assert done.exit_code == 0, done.output
    return {(r["tap"], r["estimator"]): r["value"] for r in json.loads((out / "cka.json").read_text())}


@pytest.fixture
def looked(monkeypatch):
    """How many images towers of kd-analysis see."""
    seen, read = [], vlms.VlmEncoder.read
    monkeypatch.setattr(
        vlms.VlmEncoder, "read", lambda self, images, taps: seen.append(len(images)) or read(self, images, taps)
    )
    return seen


def trained_on(root, encoders, cache, n, precision="fp32"):
    """The caches that trainings on the first `n` pictures leave."""
    for encoder in encoders.values():
        paths = sorted((root / "images").iterdir())[:n]
        cache_features(encoder, paths, root=cache, memory_limit=0, on_batch=lambda n: None, precision=precision)


def test_similarities_of_what_training_cached_run_no_tower_and_are_the_same(models, tmp_path, looked):
    root, encoders = models
    online = similarities(root, tmp_path / "online")
    assert sum(looked) == 24
    assert len(online) == 6
    looked.clear()
    trained_on(root, encoders, tmp_path / "vision", 12)
    cached = similarities(root, tmp_path / "cached", "--feature-cache", tmp_path / "vision")
    assert looked == []
    # the same tokens but for sums in batches of another size
    assert cached == pytest.approx(online, abs=1e-6)


def test_only_what_training_lacks_is_computed_and_training_then_has_it(models, tmp_path, looked):
    root, encoders = models
    online = similarities(root, tmp_path / "online")
    trained_on(root, encoders, tmp_path / "vision", 8)
    looked.clear()
    assert similarities(root, tmp_path / "a", "--feature-cache", tmp_path / "vision") == pytest.approx(online, abs=1e-6)
    assert looked == [4, 4]
    caches = [Training.open(file.parent) for file in (tmp_path / "vision").glob("*/cache.json")]
    assert [cache.verify() for cache in caches] == [12, 12]
    looked.clear()
    similarities(root, tmp_path / "b", "--feature-cache", tmp_path / "vision")
    assert looked == []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_similarities_of_rounded_tokens_are_the_same_whoever_rounded_them(precision, models, tmp_path, looked):
    root, encoders = models
    online = similarities(root, tmp_path / "online")
    rounded = ("--feature-precision", precision)
    alone = similarities(root, tmp_path / "a", "--feature-cache", tmp_path / "empty", *rounded)
    looked.clear()
    trained_on(root, encoders, tmp_path / "vision", 8, precision)
    mixed = similarities(root, tmp_path / "b", "--feature-cache", tmp_path / "vision", *rounded)
    assert looked == [4, 4]
    # a sum in batches of another size may round some tokens the other way, by 2^-9 of them in bf16
    assert mixed == pytest.approx(alone, abs=1e-4)
    assert mixed != online
    assert mixed == pytest.approx(online, abs=1e-2)
    caches = [Training.open(file.parent) for file in (tmp_path / "vision").glob("*/cache.json")]
    assert [(cache.precision, cache.verify()) for cache in caches] == [(precision, 12)] * 2


def test_features_of_rounded_tokens_stand_apart_and_another_precision_is_pointed_out(models, tmp_path, looked, caplog):
    root, encoders = models
    trained_on(root, encoders, tmp_path / "vision", 12, "bf16")
    cache = ("--feature-cache", tmp_path / "vision")
    rounded = similarities(root, tmp_path, *cache, "--feature-precision", "bf16")
    assert looked == []
    exact = similarities(root, tmp_path, *cache)
    assert sum(looked) == 24
    assert exact != rounded
    assert "tokens of this tower in bf16, none in fp32; --feature-precision bf16" in caplog.text


def test_a_damaged_shard_is_not_believed(models, tmp_path, looked):
    root, encoders = models
    online = similarities(root, tmp_path / "online")
    trained_on(root, encoders, tmp_path / "vision", 12)
    for shard in (tmp_path / "vision").glob("*/shard-*.safetensors"):
        content = bytearray(shard.read_bytes())
        content[-9] ^= 0x40  # within the tokens; the size stays
        shard.write_bytes(content)
    looked.clear()
    assert similarities(root, tmp_path / "a", "--feature-cache", tmp_path / "vision") == pytest.approx(online, abs=1e-6)
    assert sum(looked) == 24
