"""What kd_distill reads from outside, and small valid files of each kind."""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kd_distill import models
from kd_distill.cache import CacheInfo, TeacherCache, manifest
from kd_distill.config import DistillParams
from kd_distill.decode import decode
from kd_distill.doctor import _shapes
from kd_distill.exits import exit_code
from kd_distill.importing import _read
from kd_distill.index import FileState, Index, Row, open_index
from kd_distill.ledger import read_entries
from kd_distill.params import load_section
from kd_distill.reference import inputs_digest
from kd_distill.reference import read as read_reference
from kd_distill.shards import PairShards
from kd_distill.shipping import read_journal
from kd_distill.tables import PairParquet, PairTable
from kd_distill.tracking import read_ref
from kd_distill.views import Preprocessing
from kd_distill.zeroshot import read_labelled
from PIL import Image
from safetensors.numpy import save

from packages.distill.tests.fuzz.harness import Target

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "contract" / "golden"
PIXELS = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)
JOURNAL = (GOLDEN / "journal.jsonl").read_bytes()
TABLE = {"event": "table", "name": "samples", "step": 25, "rows": [{"question": "What?", "answer": "A cat."}]}


def refused(error: Exception) -> bool:
    """Whether the command ends with an exit code that says: your data or your files."""
    return exit_code(error) in (2, 3, 5)


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(out, kind, **options)
    return out.getvalue()


def tar(*members: tuple[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as written:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            written.addfile(member, io.BytesIO(content))
    return out.getvalue().rstrip(b"\0").ljust(-(-len(out.getvalue().rstrip(b"\0")) // 512) * 512, b"\0") + bytes(1024)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def parquet(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def read_all(pairs) -> None:
    """Every pair's key, caption and image."""
    for number in range(len(pairs)):
        assert pairs.caption(number).encode()
        pairs.key(number)
        try:
            pairs.image(number)
        except Exception as error:  # the loader asks the same
            if not refused(error):
                raise


def cached(path: Path) -> None:
    cache = TeacherCache(path.parent)
    cache.verify()
    cache.rows(np.arange(2), 0)


def indexed(folder: Path) -> None:
    """An index whose folder the file lies in."""
    index = Index(folder)
    for number in range(index.pairs):
        index.keys.text(number)
        index.captions.text(number)
        index.places[number].tolist()


def index_files() -> dict[str, bytes]:
    """The files of an index of two pairs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows = [Row(0, 512, 10, "a", "a cat"), Row(0, 1536, 10, "b", "two dogs")]
        index = open_index(Path(folder), [FileState("0.tar", 4096, 1)], "shards", lambda: rows)
        return {f"index/{file.name}": file.read_bytes() for file in index.folder.iterdir()}


def cache_files() -> dict[str, bytes]:
    """A cache of two pairs: its array and its manifest."""
    import hashlib

    array = npy(np.ones((2, 4), np.float16))
    info = CacheInfo(
        teacher={"schema": "kd-ref/1", "kind": "teacher", "name": "t", "sha256": "a" * 64}, preprocessing=None,
        tokenizer=None, precision="fp32", width=4, scale=100.0, bias=0.0, text=False, grid=None, patch_width=None,
        patch_layer=None, data_digest="b" * 64, pairs=2, views=1, crop_area=1.0, crop_seed=0, rows=2,
    )  # fmt: skip
    name = "image-000-000000.npy"
    return {name: array, "cache.json": manifest(info, {name: hashlib.sha256(array).hexdigest()}).encode()}


def overridden(path: Path) -> None:
    load_section(ROOT / "params.yaml", "distill", DistillParams, [path.read_bytes().decode("utf-8", "replace")])


PAIR = (("0.jpg", picture("JPEG")), ("0.txt", b"a small picture"), ("0.json", b"{}"))
LONG_NAMES = tar((f"{'a' * 120}/0.jpg", b"x"), (f"{'a' * 120}/0.txt", b"y"), form=tarfile.GNU_FORMAT)
SHARD = tar(*PAIR, ("x/1.png", picture("PNG")), ("x/1.txt", "Größe".encode()))
ROWS = [{"image": {"bytes": picture("JPEG"), "path": "a.jpg"}, "caption": "one"}, {"image": None, "caption": "two"}]
PARAMS = re.search(rb"^distill:.*?(?=^\w|\Z)", (ROOT / "params.yaml").read_bytes(), re.DOTALL | re.MULTILINE)[0]
INDEX, CACHE = index_files(), cache_files()
CONFIG = (GOLDEN / "encoder" / "open_clip_config.json").read_bytes()
REFERENCE = json.dumps({"schema": "kd-reference/1", "inputs": inputs_digest(), "cosines": [[1.0] * 8] * 8}).encode()
LEDGER = b'{"file": "0.tar", "key": "a", "cause": "empty caption", "detail": "no value", "row": null}\n'

TARGETS = (
    Target(
        "shards", "pairs/00000.tar", lambda path: read_all(PairShards(path.parent)),
        (SHARD, tar(*PAIR, form=tarfile.PAX_FORMAT), LONG_NAMES),
        refused, named="pairs",
    ),
    Target(
        "shard_counts", "pairs/00000_stats.json", lambda path: read_all(PairShards(path.parent)),
        (b'{"count": 2, "successes": 2, "failed_to_download": 0, "duration": 1.5}',), refused,
        beside={"pairs/00000.tar": SHARD}, named="pairs",
    ),
    Target(
        "table", "pairs.tsv",
        lambda path: read_all(PairTable(path, root=None, separator="\t", image="image", caption="caption")),
        (b"image\tcaption\n0.jpg\ta cat\nx/1.jpg\ttwo dogs\n", b"caption\tid\timage\r\none\t1\t0.jpg\r\n"), refused,
        beside={"0.jpg": picture("JPEG")},
    ),
    Target(
        "parquet", "pairs/0.parquet",
        lambda path: read_all(PairParquet(path.parent, root=None, image="image", caption="caption")),
        (parquet(ROWS), parquet([{"image": "a.jpg", "caption": b"x"}])), refused, named="pairs",
    ),
    Target(
        "image", "0.jpg", lambda path: decode(path.read_bytes()),
        (
            picture("JPEG"), picture("JPEG", progressive=True), picture("JPEG", "CMYK"), picture("PNG"),
            picture("PNG", "I;16"),
            picture("PNG", "P"), picture("PNG", "RGBA"), picture("WEBP"), picture("WEBP", lossless=True),
        ), refused, named=None,
    ),
    Target("cache_manifest", "cache.json", cached, (CACHE["cache.json"],), refused, beside=CACHE),
    Target(
        "embeddings", "image.npy", lambda path: _read(path, 3),
        (npy(np.ones((3, 4), np.float32)), npy(np.ones((3, 4), np.float16))), refused,
    ),
    *(
        Target(
            f"index_{name.partition('.')[0] if name.endswith('.json') else name.replace('.', '_')}", f"index/{name}",
            lambda path: indexed(path.parent), (INDEX[f"index/{name}"],), refused, beside=INDEX, named="index",
        )
        for name in ("index.json", "place.npy", "key.npy", "key.bin")
    ),
    Target("ledger", "ledger.jsonl", read_entries, (LEDGER * 2,), refused),
    Target("journal", "journal.jsonl", read_journal, (JOURNAL, JOURNAL + json.dumps(TABLE).encode() + b"\n"), refused),
    Target("params", "params.yaml", lambda path: load_section(path, "distill", DistillParams), (PARAMS,), refused),
    Target(
        "set", "set.txt", overridden, (b"data.views=2", b"recipes.clip-kd.steps=50", b"distill.data.workers=1"),
        refused, named=None,
    ),
    Target("reference", "ref.json", read_ref, ((GOLDEN / "ref.json").read_bytes(),), refused),
    Target("model_config", "open_clip_config.json", lambda path: models.read_config(path.parent), (CONFIG,), refused),
    Target(
        "weights", "open_clip_model.safetensors", lambda path: _shapes(path.parent),
        (save({"a": np.ones((2, 3), np.float32), "b": np.zeros(1, np.float16)}),), refused,
    ),
    Target("cosines", "reference.json", read_reference, (REFERENCE,), refused),
    Target(
        "labelled", "set/test/0.tar",
        lambda path: read_labelled(path.parents[1], Preprocessing(8, (0.5,) * 3, (0.5,) * 3)),
        (tar(("0.jpg", picture("JPEG")), ("0.cls", b"1"), ("1.cls", b"0"), ("1.webp", picture("WEBP"))),), refused,
        beside={"set/classnames.txt": b"cat\ndog\n", "set/zeroshot_classification_templates.txt": b"a {c}\n"},
    ),
)  # fmt: skip
