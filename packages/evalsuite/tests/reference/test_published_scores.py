"""Published scores from published answers. Needs real data, which are not part of this repository."""

import json
import os
import tarfile
from pathlib import Path

import pytest
from kd_evalsuite.data import TaskData, load_task
from kd_evalsuite.items import Picture
from kd_evalsuite.records import Prediction
from kd_evalsuite.score import score_task

from packages.evalsuite.tests.helpers.benchmarks import write_jsonl

ROOT = Path(__file__).resolve().parents[4]
REAL = Path(os.environ.get("KD_REAL_DATA", ROOT.parent / "shared" / "data"))
GOLD, LLAVA = REAL / "benchmark_gold", REAL / "llava15_13b_eval"
needs = pytest.mark.skipif(not GOLD.exists() or not LLAVA.exists(), reason=f"no real data at {REAL}")


def answers(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scored(data: TaskData, replies: dict[str, str]):
    return score_task(data, {k: Prediction(id=k, prediction=v) for k, v in replies.items()}, "paper").scores[0]


@needs
def test_gqa_of_llava_15_13b_is_63_3(tmp_path):
    (tmp_path / "gqa").mkdir()
    with tarfile.open(GOLD / "gqa_testdev_balanced_questions.tar.gz") as tar:
        content = tar.extractfile("testdev_balanced_questions.json").read()
    (tmp_path / "gqa" / "testdev_balanced_questions.json").write_bytes(content)
    data = load_task(tmp_path, "gqa", pictures=False)
    replies = {a["question_id"]: a["text"] for a in answers(next((LLAVA / "gqa/answers").rglob("*.jsonl")))}
    score = scored(data, replies)
    assert (score.n, round(score.percent, 1)) == (12578, 63.3)
    assert len({item.cluster for item in data.items}) == 398
    assert 0.4 < 100 * score.stderr < 0.8  # questions of an image vary together


def mme_rows() -> list[dict]:
    rows = []
    for file in sorted((GOLD / "mme_lavin").glob("*.txt")):
        for line in file.read_text().splitlines():
            image, question, answer, reply = line.split("\t")
            rows.append(
                {"question_id": f"{file.stem}/{image}", "question": question, "answer": answer, "category": file.stem}
                | {"reply": reply}
            )
    return rows


@pytest.fixture
def mme(tmp_path):
    rows = mme_rows()
    write_jsonl(tmp_path / "mme_perception" / "test.jsonl", rows)
    return load_task(tmp_path, "mme_perception", pictures=False), rows


@needs
def test_mme_perception_of_lavin_is_963_6(mme):
    data, rows = mme
    replies = {(f"{r['category']}/{r['question_id']}", r["question"]): r["reply"] for r in rows}
    score = scored(data, {i.id: replies[i.cluster, i.question] for i in data.items})
    assert (score.best, score.n) == (2000, 2114)
    assert round(score.value, 1) == 963.6


@needs
def test_mme_perception_of_llava_15_13b_is_1531_3(mme):
    data, _ = mme
    suffix = "\nAnswer the question using a single word or phrase."

    def key(image, question):
        return Path(image).stem, question.removesuffix(suffix).removesuffix("Please answer yes or no.").strip()

    replies = {
        (a["question_id"].split("/")[0], *key(a["question_id"], a["prompt"])): a["text"]
        for a in answers(LLAVA / "MME/answers/llava-v1.5-13b.jsonl")
    }
    score = scored(data, {i.id: replies[i.category, *key(i.cluster, i.question)] for i in data.items})
    assert round(score.value, 1) == 1531.3
    assert 15 < score.stderr < 40


@needs
def test_mmvp_and_ocrbench_read_their_original_files(tmp_path):
    (tmp_path / "mmvp").mkdir()
    (tmp_path / "mmvp" / "Questions.csv").write_bytes((GOLD / "mmvp_Questions.csv").read_bytes())
    mmvp = load_task(tmp_path, "mmvp", pictures=False)
    assert len(mmvp.items) == 300
    score = scored(mmvp, {i.id: "A" for i in mmvp.items})
    assert (score.value, score.n, score.chance) == (0, 150, 0.25)
    (tmp_path / "ocrbench").mkdir()
    (tmp_path / "ocrbench" / "OCRBench.json").write_bytes((GOLD / "OCRBench.json").read_bytes())
    ocr = load_task(tmp_path, "ocrbench", pictures=False)
    assert len(ocr.items) == 1000
    assert scored(ocr, {i.id: i.gold[0] for i in ocr.items}).value == 1
    assert isinstance(ocr.items[0].pictures[0], Picture)


@pytest.mark.skipif(not (REAL / "chartqa_sample").exists(), reason=f"no real data at {REAL}")
def test_chartqa_reads_its_original_columns(tmp_path):
    source = REAL / "chartqa_sample"
    (tmp_path / "chartqa").symlink_to(source)
    data = load_task(tmp_path, "chartqa")
    rows = answers(source / "questions.jsonl")
    replied = {
        item.id: row["vila_13b_pred"] for item, row in zip(data.items, rows, strict=True) if "vila_13b_pred" in row
    }
    part = TaskData("chartqa", [i for i in data.items if i.id in replied], data.sha256)
    assert len(data.items[0].pictures[0].read()) > 1000
    assert 0.3 < scored(part, replied).value < 0.9
