"""What kd_evalsuite reads from outside, and small valid files of each kind."""

import base64
import csv
import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from kd_evalsuite.answers import match, read_answers
from kd_evalsuite.config import EvalParams
from kd_evalsuite.data import load_folder
from kd_evalsuite.hub import read_source
from kd_evalsuite.images import decode, mime_type
from kd_evalsuite.items import Item
from kd_evalsuite.llm_judge import Cache
from kd_evalsuite.models.endpoint import _reply_of, _TryAgainError
from kd_evalsuite.options import _code
from kd_evalsuite.params import load_section
from kd_evalsuite.predictions import PredictionFile, read_manifest
from kd_evalsuite.printed import TableParams, read_table
from kd_evalsuite.results import read_items, scores_in
from kd_evalsuite.safe import csv_cell, latex, markdown
from kd_evalsuite.tasks import EVERY, PROTOCOLS
from kd_evalsuite.tracking import read_ref
from kd_evalsuite.zeroshot.config import check_config
from kd_evalsuite.zeroshot.sets import open_set
from PIL import Image

from packages.evalsuite.tests.fuzz.harness import Target
from packages.evalsuite.tests.helpers.benchmarks import png, write_all

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "contract" / "golden"


def refused(error: Exception) -> bool:
    """Whether the command ends with an exit code that says: your data or your files."""
    return _code(error) in (2, 5)


def rows_of_public() -> dict[str, list[dict]]:
    """Two rows of each benchmark in the columns of its public data set, without pictures."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder))
        for key in EVERY:
            files = sorted(Path(folder, key).rglob("*.parquet"))
            table = [f for f in files if "instructions" in f.parent.name] or files
            if table:
                rows = pq.read_table(table[0]).slice(0, 2).to_pylist()
                plain = [{k: v for k, v in row.items() if "image" not in k or k == "imageId"} for row in rows]
                found[key] = plain
    return found


def separated(rows: list[dict], delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    pixels = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)
    Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


def tar(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as written:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            written.addfile(member, io.BytesIO(content))
    return out.getvalue()[:5120]


def lines(*rows: dict) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def benchmark(key: str):
    """A reader of that benchmark's file, every prompt and every judge."""

    def read(path: Path) -> None:
        task = EVERY[key]
        for item in load_folder(path, key).items:
            for picture in item.pictures:
                assert picture is not None
            for protocol in PROTOCOLS:
                for metric in task.metrics_of(protocol):
                    metric.judge("The answer is (B).", item)
            for ask in task.prompts.values():
                assert ask(item).text is not None

    return read


def judged(path: Path) -> None:
    """Every judge of every benchmark on any reply, and the reply shown anywhere."""
    reply = path.read_bytes().decode("utf-8", "replace")
    for key, task in EVERY.items():
        for protocol in PROTOCOLS:
            for metric in task.metrics_of(protocol):
                verdict = metric.judge(reply, ITEMS[key])
                assert 0 <= verdict.score <= 1
    for shown in (markdown(reply), latex(reply), csv_cell(reply)):
        assert "\x1b" not in shown


def item_of(key: str) -> Item:
    open_answer = key in ("gqa", "chartqa", "ocrbench", "textvqa", "docvqa", "mathvista")
    yes = key.startswith("mme")
    return Item(
        id="1", question="What?", gold=("1.5", "red") if open_answer else ("Yes" if yes else "B",),
        choices=() if open_answer else ("Yes", "No") if yes else ("a cat", "two dogs", "3"),
        category="Handwritten Mathematical Expression Recognition" if key == "ocrbench" else "",
        fields={"answer_type": "float", "precision": 1.0, "hint": "", "ocr_tokens": (), "unit": "", "question": "What"},
    )  # fmt: skip


def answered(path: Path) -> None:
    match(read_answers(path), [Item(str(n), f"What {n}?", ("a",), cluster=f"{n}.jpg") for n in range(4)], path)


def predicted(path: Path) -> None:
    with PredictionFile(path) as file:
        assert isinstance(file.done, dict)


def classified(path: Path) -> None:
    for one in open_set(path.parents[1] if path.parent.name == "test" else path.parent):
        assert one.label in (0, 1)


def reply(path: Path) -> None:
    text, tokens = _reply_of(path.read_bytes())
    assert tokens >= 0
    assert text == text.strip()


def overridden(path: Path) -> None:
    load_section(ROOT / "params.yaml", "evalsuite", EvalParams, [path.read_bytes().decode("utf-8", "replace")])


PUBLIC = rows_of_public()
ITEMS = {key: item_of(key) for key in EVERY}
CODED = base64.b64encode(png(1)).decode()
PARAMS = (
    b"evalsuite:\n" + (ROOT / "params.yaml").read_bytes().split(b"\nevalsuite:\n")[1].split(b"\nanalysis:")[0] + b"\n"
)
CONFIG = (GOLDEN / "encoder" / "open_clip_config.json").read_bytes()
PREDICTIONS = lines(
    {"id": "1", "prediction": "B", "prompt_sha256": "a", "image_sha256": None, "tokens": 1, "seconds": 0.5},
    {"id": "2", "error": "HTTP 500", "prompt_sha256": "a", "image_sha256": "b", "seconds": 1.0},
)
MANIFEST = json.dumps({
    "schema": "kd-predictions/1", "model": {"kind": "vlm", "name": "m", "sha256": "a"}, "blind": False,
    "protocol": "paper",
    "prompts": "cambrian", "mode": "generate", "limit": None,
    "tasks": {"gqa": {"rows": 2, "data_sha256": "b", "max_new_tokens": 16, "source": ""}},
}).encode()  # fmt: skip
COMPLETION = json.dumps({"choices": [{"message": {"content": " B. "}}], "usage": {"completion_tokens": 3}}).encode()
PRINTED = b"model,Avg,GQA,MMMU,AI2D\nours,50.0,60.1,40.0,50.2\ntheirs,51.0,61.0,41.1,52.3\n"
CLASSES = {"set/classnames.txt": b"cat\ndog\n", "set/zeroshot_classification_templates.txt": b"a {c}\n"}
MMBENCH = {
    "index": 7,
    "question": "Which?",
    "hint": "",
    "A": "x",
    "B": "y",
    "C": "",
    "D": "",
    "answer": "A",
    "image": CODED,
}

TARGETS = (
    *(
        Target(f"{key}", f"data/{key}.jsonl", benchmark(key), (lines(*rows),), refused, named="data")
        for key, rows in PUBLIC.items()
    ),
    Target("benchmark_json", "data/problems.json", benchmark("scienceqa"), (
        json.dumps({"1": {"question": "q", "choices": ["a", "b"], "answer": 0, "split": "test"}}).encode(),
    ), refused, named="data"),
    Target(
       "benchmark_tsv", "data/x.tsv", benchmark("mmbench_en"), (separated([MMBENCH, MMBENCH | {"index": 8}], "\t"),),
           refused, named="data"),
    Target("benchmark_csv", "data/Questions.csv", benchmark("mmvp"),
           (b'lndex,Question,Options,Correct Answer\n1,Red?,(a) Red (b) Blue,(a)\n2,"Red, or",(a) Red (b) Blue,(b)\n',),
           refused, named="data"),
    Target("benchmark_mme", "data/color.txt", lambda path: benchmark("mme_perception")(path.parent),
           (b"1.png\tIs it red?\tYes\n1.png\tBlue?\tNo\n",),
           refused, named="data"),
    Target("replies", "reply.txt", judged, (
        b"The answer is (B).", b"yes, it is", b"A. a cat", b"[1, 2.5]", b"12.5%", b"answer: 1,234.5e3 or -3",
        b"two dogs",
    ), refused, named=None, seconds=4.0),
    Target("answers_jsonl", "a.jsonl", answered, (
        lines({"question_id": 1, "text": "B", "prompt": "What 1?"}, {"question_id": 2, "text": "C"}),
        lines({"doc_id": 0, "filtered_resps": ["B"]}, {"doc_id": 1, "filtered_resps": ["C"], "resps": [["C"]]}),
        PREDICTIONS.split(b"\n")[0],
    ), refused),
    Target("answers_json", "a.json", answered, (
        json.dumps({"1": {"response": "B", "pid": "1"}, "2": {"response": "C", "pid": "2"}}).encode(),
        json.dumps([{"index": 1, "prediction": "B"}, {"index": 2, "prediction": "C"}]).encode(),
    ), refused),
    Target("answers_tsv", "a.tsv", answered, (b"index\tprediction\n1\tB\n2\tC\n",), refused),
    Target("answers_mme", "mme/color.txt", lambda path: read_answers(path.parent), (b"1.png\tRed?\tYes\tNo\n",),
           refused),
    Target("predictions", "gqa.jsonl", predicted, (PREDICTIONS,), refused),
    Target("manifest", "manifest.json", lambda path: read_manifest(path.parent), (MANIFEST,), refused),
    Target("items", "items.jsonl", read_items, ((GOLDEN / "items.jsonl").read_bytes() * 1,), refused),
    Target("scores", "scores.json", lambda path: scores_in(path.parent), ((GOLDEN / "scores.json").read_bytes(),),
           refused),
    Target("judge_cache", "judge.jsonl", lambda path: Cache(path, "j", lambda text: "B")("What?"),
           (lines({"key": "a", "judge": "j", "said": "B"}),), refused),
    Target("completion", "reply.json", reply, (COMPLETION,), lambda error: isinstance(error, _TryAgainError),
           named=None),
    Target("printed", "table.csv", lambda path: read_table(path, TableParams()), (PRINTED,), refused),
    Target("picture", "1.png", lambda path: (decode(path.read_bytes()), mime_type(path.read_bytes())), (
        picture("PNG"), picture("JPEG"), picture("GIF", "P"), picture("WEBP"), picture("TIFF"), picture("BMP"),
    ), refused, named=None),
    Target("source", ".source.json", lambda path: read_source(path.parent),
           (b'{"dataset": "lmms-lab/GQA", "revision": "abc", "files": {"a": "b"}}',), refused),
    Target("zeroshot_shard", "set/test/0.tar", classified,
           (tar(("0.jpg", b"x"), ("0.cls", b"1"), ("1.cls", b"0"), ("1.webp", b"y")),), refused, beside=CLASSES),
    Target("zeroshot_names", "set/classnames.txt", lambda path: open_set(path.parent), (b"cat\ndog\n",), refused,
           beside={**CLASSES, "set/test/0.tar": b""}),
    Target("encoder_config", "open_clip_config.json", lambda path: check_config(path.parent), (CONFIG,), refused,
           beside={"open_clip_model.safetensors": b""}),
    Target("params", "params.yaml", lambda path: load_section(path, "evalsuite", EvalParams), (PARAMS,), refused),
    Target("set", "set.txt", overridden, (b"protocol=lmms", b"evalsuite.limit=5"), refused, named=None),
    Target("reference", "ref.json", read_ref, ((GOLDEN / "ref.json").read_bytes(),), refused),
)  # fmt: skip
