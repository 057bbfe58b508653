"""What kd_vlm reads from outside, and small valid files of each kind."""

import hashlib
import io
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
from kd_vlm.card import escaped, read_facts, read_scores
from kd_vlm.checkpoint import MANIFEST, Checkpoints
from kd_vlm.config import Section
from kd_vlm.data import picture_problems, read_conversations
from kd_vlm.encoder import load_encoder
from kd_vlm.exits import exit_code
from kd_vlm.legacy import write_legacy
from kd_vlm.lineage import Inputs, go_on
from kd_vlm.lm import read_text, train_tokenizer
from kd_vlm.manifest import read_manifest
from kd_vlm.open_clip_config import read_config
from kd_vlm.params import load_section
from kd_vlm.pictures import decode_image
from kd_vlm.shipping import read_journal
from kd_vlm.templates import TEMPLATES, encode
from kd_vlm.tracking import read_ref
from kd_vlm.validate import validate
from kd_vlm.vision_cache import VisionCache
from kd_vlm.workspace import file_digest
from PIL import Image
from safetensors.numpy import save

from packages.vlm.tests.fuzz.harness import Target

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "contract" / "golden"
PIXELS = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)
TOKENIZER = train_tokenizer(["a cat", "two dogs"], 300)


def said(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


ROWS = [
    {"id": "1", "image": "a.png", "conversations": [said("human", "<image>\nWhat?"), said("gpt", "A")]},
    {"id": 2, "conversations": [said("human", "Hi"), said("gpt", "Größe")]},
    {
        "id": "3", "image": ["a.png", "b.png"],
        "conversations": [said("gpt", "Hello"), said("human", "<image><image>"), said("gpt", "x")],
    },
]  # fmt: skip


def refused(error: Exception) -> bool:
    """Whether the command ends with an exit code that says: your data or your files."""
    return exit_code(error) in (2, 5)


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(out, kind, **options)
    return out.getvalue()


def parquet(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def conversed(path: Path) -> None:
    """Everything that a training does with conversations before it needs a model."""
    skipped = read_conversations(path, images=path.parent, bad="skip")
    for sample in skipped:
        segments = TEMPLATES["qwen2_base"](sample.turns)
        encode([segments], TOKENIZER, image_id=-1, tokens_per_image=4)
        picture_problems(sample, path.parent, decode=True)
    manifest = validate(
        path, path.parent, path.parent / "manifest", tokens=None, workers=1, on_rows=lambda done, n: None
    )
    read_manifest(manifest.folder, path)
    blanked = read_conversations(path, images=path.parent, bad="blank", known=manifest.problems())
    assert len(blanked) >= len(skipped)
    read_conversations(path, images=path.parent)


def summed(path: Path) -> None:
    manifest = read_manifest(path.parent, path.with_name("x.jsonl"))
    assert manifest.counts is not None
    assert manifest.bad_share == manifest.bad_share


def with_digests(path: Path) -> None:
    """The lines of a manifest whose summary knows their digest: whoever writes one writes both."""
    summary = json.loads(SUMMARY) | {"samples_sha256": file_digest([path])}
    path.with_name("manifest.json").write_text(json.dumps(summary))
    read_manifest(path.parent, path.parent / "x.jsonl").problems()


def manifest_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "x.jsonl")
        place.write_bytes(LINES)
        validate(place, place.parent, place.parent / "m", tokens=None, workers=1, on_rows=lambda done, n: None)
        return {name: Path(folder, "m", name).read_bytes() for name in ("manifest.json", "samples.jsonl")}


def cache_files() -> dict[str, bytes]:
    """A cache of the visual tokens of two pictures."""
    with tempfile.TemporaryDirectory() as folder:
        cache = VisionCache.create(Path(folder), {"tower_sha256": "a" * 64}, tokens=3, width=2, precision="bf16")
        with cache.writing():
            cache.append(["0" * 64, "1" * 64], np.ones((2, 3, 2), np.uint16))
        return {file.name: file.read_bytes() for file in cache.folder.iterdir() if file.suffix != ".lock"}


def cached(path: Path) -> None:
    cache = VisionCache.open(path.parent)
    cache.missing(["2" * 64])
    for shard in cache.shards:
        np.asarray(shard.tokens).sum()
    cache.verify()


def sharded(path: Path) -> None:
    """A shard that its list describes: whoever writes a cache writes both."""
    data = path.read_bytes()
    entry = {"file": path.name, "rows": 2, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    whole = {"schema": "kd-vision-cache/1", "shards": [entry]}
    path.with_name("shards.json").write_text(json.dumps(whole))
    cached(path)


def checkpoint(path: Path) -> None:
    """As `newest` does, which takes the step before where one is damaged."""
    Checkpoints(path.parents[1]).newest()


def overridden(path: Path) -> None:
    load_section(ROOT / "params.yaml", "vlm", Section, [path.read_bytes().decode("utf-8", "replace")])


def encoder_files() -> tuple[bytes, bytes]:
    """Configuration and weights of an encoder of a few thousand parameters."""
    config = {
        "embed_dim": 8, "vision_cfg": {"image_size": 8, "layers": 2, "width": 16, "head_width": 8, "patch_size": 4},
        "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 1, "layers": 1},
    }  # fmt: skip
    weights = {
        name: value.numpy() for name, value in open_clip.CLIP(**config).state_dict().items() if "visual." in name
    }
    return json.dumps({"model_cfg": config, "preprocess_cfg": {}}).encode(), save(weights)


LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
PICTURES = {"a.png": picture("PNG"), "b.png": picture("JPEG")}
MANIFEST_FILES, CACHE = manifest_files(), cache_files()
SUMMARY = MANIFEST_FILES["manifest.json"]
BESIDE = {"x.jsonl": LINES, **MANIFEST_FILES}
SHARD = next(name for name in CACHE if name.endswith(".safetensors"))
PARAMS = re.search(rb"^vlm:.*?(?=^\w|\Z)", (ROOT / "params.yaml").read_bytes(), re.DOTALL | re.MULTILINE)[0]
CONFIG = (GOLDEN / "encoder" / "open_clip_config.json").read_bytes().replace(b'"layers": 1', b'"layers": 2', 1)
JOURNAL = (GOLDEN / "journal.jsonl").read_bytes()
STOCK = {
    "model_type": "llava", "architectures": ["Llava"], "vision_config": {"model_type": "clip_vision_model"},
    "text_config": {"model_type": "qwen2", "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
}  # fmt: skip
STEP = {
    "schema": "kd-checkpoint/1",
    "step": 3,
    "files": {"x": {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}},
}
MLMODEL = b"flavors:\n  kd:\n    kd.arch: vit\n    kd.params_m: '5.0'\nmodel_uuid: m-1\n"
VALUES = {"lr": 0.001, "steps": 5}
INPUTS = json.dumps({"values": VALUES, "changes": [{"step": 2, "changed": {"lr": [0.1, 0.001]}}]}).encode()
ENCODER, WEIGHTS = encoder_files()

TARGETS = (
    Target("conversations", "x.json", conversed, (json.dumps(ROWS).encode(), json.dumps(ROWS, indent=1).encode()),
           refused, beside=PICTURES),
    Target("conversation_lines", "x.jsonl", conversed, (LINES,), refused, beside=PICTURES),
    Target(
        "conversation_parquet", "x.parquet", conversed,
        (parquet([row | {"id": str(row["id"]), "image": row.get("image")} for row in ROWS[:2]]),), refused,
        beside=PICTURES,
    ),
    Target(
        "picture", "a.png", decode_image,
        (
            *PICTURES.values(), picture("GIF", "P"), picture("WEBP"), picture("BMP"), picture("TIFF"),
            picture("PNG", "I;16"),
        ),
        refused,
    ),
    Target(
        "manifest", "manifest.json", summed,
        (SUMMARY,), refused, beside=BESIDE,
    ),
    Target("manifest_lines", "samples.jsonl", with_digests, (MANIFEST_FILES["samples.jsonl"],), refused, beside=BESIDE),
    Target("cache", "cache.json", cached, (CACHE["cache.json"],), refused, beside=CACHE, named="outside"),
    Target("cache_list", "shards.json", cached, (CACHE["shards.json"],), refused, beside=CACHE, named="outside"),
    Target("cache_shard", SHARD, sharded, (CACHE[SHARD],), refused, beside=CACHE),
    Target("text", "text.jsonl", read_text, (b'{"text": "a cat"}\n{"text": "Gr\\u00f6\\u00dfe"}\n',), refused),
    Target(
        "encoder_config", "open_clip_config.json", lambda path: read_config(path.parent).size, (CONFIG,), refused,
    ),
    Target(
        "encoder_weights", "open_clip_model.safetensors", lambda path: load_encoder(path.parent),
        (WEIGHTS,), refused,
        beside={"open_clip_config.json": ENCODER},
    ),
    Target("params", "params.yaml", lambda path: load_section(path, "vlm", Section), (PARAMS,), refused),
    Target("set", "set.txt", overridden, (b"save_every=5", b"vlm.workers=1", b"data.bad=skip"), refused, named=None),
    Target("journal", "journal.jsonl", read_journal, (JOURNAL,), refused),
    Target("facts", "journal.jsonl", lambda path: escaped(read_facts(path.parent, "m")), (JOURNAL,), refused),
    Target("registered", "MLmodel", lambda path: escaped(read_facts(path.parent, "m")), (MLMODEL,), refused),
    Target("scores", "scores.json", read_scores, ((GOLDEN / "scores.json").read_bytes(),), refused),
    Target("reference", "ref.json", read_ref, ((GOLDEN / "ref.json").read_bytes(),), refused),
    Target(
        "inputs", "inputs.json", lambda path: go_on(path.parent, Inputs(VALUES), step=3, fork=False),
        (INPUTS,), refused, named="outside",
    ),
    Target(
        "checkpoint", f"step-00000003/{MANIFEST}", checkpoint, (json.dumps(STEP).encode(),), refused,
        beside={"step-00000003/x": b"x"}, named="outside",
    ),
    Target(
        "stock_config", "config.json", lambda path: write_legacy(path.parent, path.parent),
        (json.dumps(STOCK).encode(),), refused,
        beside={
            "tokenizer_config.json": b'{"extra_special_tokens": ["<image>"]}',
            "processor_config.json": b'{"patch_size": 2}',
            "preprocessor_config.json": b'{"image_processor_type": "CLIPImageProcessor"}',
        },
    ),
)  # fmt: skip
