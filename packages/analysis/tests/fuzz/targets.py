"""What kd_analysis reads from outside, and small valid files of each kind."""

import hashlib
import io
import json
import re
import tarfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kd_analysis.config import AnalysisParams
from kd_analysis.folders import architecture, look, width
from kd_analysis.grid import Grid
from kd_analysis.heads import read_heads
from kd_analysis.images import _decoded, encoded_images
from kd_analysis.measure import measure_metrics
from kd_analysis.mlflow_results import read_mlflow
from kd_analysis.moments import Moments
from kd_analysis.params import load_section
from kd_analysis.results import DuplicateError, read_csv, with_averages
from kd_analysis.scores import read_scored
from kd_analysis.similarity import Record, mean_over_tasks, read_records
from kd_analysis.store import Decoded
from kd_analysis.tracking import IntegrityError, read_ref
from PIL import Image
from safetensors.numpy import save

from packages.analysis.tests.fuzz.harness import Target

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "contract" / "golden"
PIXELS = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)


def refused(error: Exception) -> bool:
    """Whether `guarded` ends the command with an exit code that says: your data or your files."""
    return isinstance(error, ValueError | FileNotFoundError | IntegrityError)


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(out, kind, **options)
    return out.getvalue()


def tar(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as written:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            written.addfile(member, io.BytesIO(content))
    return out.getvalue()[:5120]


def parquet(rows: list[dict]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def moments() -> bytes:
    one, two, out = np.eye(3), np.eye(2), io.BytesIO()
    np.savez(
        out, n=np.asarray(6), pilot_x=one[0], pilot_y=two[0], mean_x=one[1], mean_y=two[1], xx=one, yy=two,
        xy=one[:, :2],
        axu=one[0], axv=one[0], bxu=two[0], bxv=two[0], aa=np.asarray(1.0), ab=np.asarray(1.0), bb=np.asarray(1.0),
    )  # fmt: skip
    return out.getvalue()


def tabled(path: Path) -> None:
    """A table of results as the tables and figures take it."""
    found = read_csv(path)
    with_averages(found)
    with suppress(DuplicateError):  # which names the cells
        Grid(found)


def pictured(path: Path) -> None:
    for where, data in encoded_images(path):
        _decoded(where, data)


def recorded(path: Path) -> None:
    mean_over_tasks(read_records(path))


def decoded(path: Path) -> None:
    known = Decoded(path)
    known.of(b"x")
    known.learn("a" * 64, "b" * 64)
    known.save()


def configured(path: Path) -> None:
    architecture(path.parent)
    look(path.parent)
    width(path.parent)


def checkpoint(path: Path) -> None:
    read_heads(path.parent)


def served(path: Path) -> None:
    """Results from a tracking server whose runs, tags and metrics are what the file says."""
    try:
        said = {name: dict(part) for name, part in json.loads(path.read_bytes()).items()}
        texts = [{str(k): str(v) for k, v in said[name].items()} for name in ("tags", "version", "params")]
        metrics = {str(k): float(v) for k, v in said["metrics"].items()}
    except Exception as error:  # MLflow gives text and numbers, nothing else
        raise ValueError from error
    tags, version, params = texts
    info = SimpleNamespace(run_id="r", run_name=tags.get("name", "m"))
    run = SimpleNamespace(info=info, data=SimpleNamespace(tags=tags, metrics=metrics, params=params))

    class Page(list):
        token = None

    registered = SimpleNamespace(name=tags.get("name", "m"), version="1", run_id="r", tags=version)
    read_mlflow(SimpleNamespace(
        get_experiment_by_name=lambda name: SimpleNamespace(experiment_id="1") if name == "eval" else None,
        search_runs=lambda *a, **k: Page([run]), search_model_versions=lambda *a, **k: [registered],
        get_run=lambda run_id: run,
    ))  # fmt: skip


def overridden(path: Path) -> None:
    load_section(ROOT / "params.yaml", "analysis", AnalysisParams, [path.read_bytes().decode("utf-8", "replace")])


RECORD = (
    {field.name: "x" for field in fields(Record)} | dict.fromkeys(("value", "low", "high", "se", "z"), 0.5) | {"n": 9}
)
SERVED = {
    "tags": {"sha256": "a", "name": "student-vit--small--clip-kd"}, "params": {"epochs": "32"},
    "metrics": {"eval/gqa/accuracy": 0.5, "eval/gqa/accuracy.stderr": 0.1, "eval/gqa/accuracy.n": 100.0},
    "version": {"kd.kind": "student", "kd.arch": "vit", "kd.teacher": "teacher-a", "kd.recipe": "kd", "kd.seed": "1"},
}  # fmt: skip
TABLE = (
    b"framework,llm,teacher,student,loss,dataset,epochs,epoch,seed,task,metric,value,se,n\n"
    b"tinyllava,small,teacher-a,vit,kd,cc12m,32,32,0,gqa,score,50.5,0.5,100\n"
    b"tinyllava,small,teacher-b,vit,kd,cc12m,,,,gqa,score,51.0,,\n"
)
SCORES = (GOLDEN / "scores.json").read_bytes()
ITEM = (GOLDEN / "items.jsonl").read_bytes()
CONFIG = (GOLDEN / "encoder" / "open_clip_config.json").read_bytes()
PARAMS = re.search(rb"^analysis:.*?(?=^\w|\Z)", (ROOT / "params.yaml").read_bytes(), re.DOTALL | re.MULTILINE)[0]
HEADS = save({"t.image.weight": np.ones((2, 3), np.float32), "t.image.bias": np.ones(2, np.float32)})
STATE = json.dumps({"files": {"state.safetensors": {"sha256": hashlib.sha256(HEADS).hexdigest()}}}).encode()

TARGETS = (
    Target("results", "results.csv", tabled, (TABLE,), refused),
    Target("scores", "out/m/scores.json", lambda path: read_scored(path.parents[1]), (SCORES,), refused,
           beside={"out/m/items.jsonl": ITEM}, named="out"),
    Target("items", "out/m/items.jsonl", lambda path: read_scored(path.parents[1]), (ITEM * 2,), refused,
           beside={"out/m/scores.json": SCORES}, named="items.jsonl"),
    Target("images_tar", "0.tar", pictured, (tar(("0.png", picture("PNG")), ("1.jpg", picture("JPEG"))),), refused),
    Target("images_parquet", "0.parquet", pictured,
           (parquet([{"image": {"bytes": picture("PNG"), "path": "a.png"}, "x": 1}]),), refused),
    Target("picture", "0.png", pictured,
           (picture("PNG"), picture("JPEG"), picture("WEBP"), picture("GIF", "P")), refused),
    Target("records", "cka.json", recorded, (json.dumps([RECORD]).encode(),), refused),
    Target("measures", "measures.json", lambda path: measure_metrics(path, "s"), (
        json.dumps([{"student": "s", "relation": "own", "value": 1, "tap": "p", "measure": "m", "task": "t"}]).encode(),
    ), refused),
    Target("moments", "state.npz", Moments.load, (moments(),), refused),
    Target("decoded", "decoded.jsonl", decoded, (b'{"bytes": "aa", "pixels": "bb"}\n' * 2,), refused),
    Target("model_config", "open_clip_config.json", configured, (CONFIG,), refused),
    Target("heads", "heads.safetensors", lambda path: read_heads(path.parent), (HEADS,), refused),
    Target("checkpoint", "manifest.json", checkpoint, (STATE,), refused,
           beside={"state.safetensors": HEADS}, named="outside"),
    Target("mlflow", "server.json", served, (json.dumps(SERVED).encode(),),
           refused, named=None),
    Target("params", "params.yaml", lambda path: load_section(path, "analysis", AnalysisParams), (PARAMS,), refused),
    Target("set", "set.txt", overridden, (b"tap=pooled", b"analysis.level=0.9"), refused, named=None),
    Target("reference", "ref.json", read_ref, ((GOLDEN / "ref.json").read_bytes(),), refused),
)  # fmt: skip
