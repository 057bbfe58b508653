"""Published scores from published answers. Needs real data, which are not part of this repository."""

import base64
import csv
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from kd_evalsuite.data import TaskData, load_folder, load_task
from kd_evalsuite.items import Picture
from kd_evalsuite.records import Prediction
from kd_evalsuite.score import score_task
from kd_evalsuite.single import load_replies, report
from kd_evalsuite.tasks import PROTOCOLS

from packages.evalsuite.tests.helpers.benchmarks import write_jsonl

ROOT = Path(__file__).resolve().parents[4]
REAL = Path(os.environ.get("KD_REAL_DATA", ROOT.parent / "shared" / "data"))
GOLD, LLAVA = REAL / "benchmark_gold", REAL / "llava15_13b_eval"
needs = pytest.mark.skipif(not GOLD.exists() or not LLAVA.exists(), reason=f"no real data at {REAL}")


def answers(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scored(data: TaskData, replies: dict[str, str]):
    return score_task(data, {k: Prediction(id=k, prediction=v) for k, v in replies.items()}, "paper").scores[0]


@pytest.fixture(scope="module")
def gqa(tmp_path_factory):
    """GQA's original file of questions, and LLaVA-1.5-13B's answer file."""
    folder = tmp_path_factory.mktemp("gqa")
    with tarfile.open(GOLD / "gqa_testdev_balanced_questions.tar.gz") as tar:
        content = tar.extractfile("testdev_balanced_questions.json").read()
    (folder / "testdev_balanced_questions.json").write_bytes(content)
    return load_replies("gqa", next((LLAVA / "gqa/answers").rglob("*.jsonl")), folder)


@needs
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_gqa_of_llava_15_13b_is_63_3(gqa, protocol):
    found = report(gqa, protocol)
    assert (found["n"], f"{found['value']:.1f}", found["unparsed"]) == (12578, "63.3", 0)
    assert found["data"]["complete"]
    assert len({item.cluster for item in gqa.data.items}) == 398
    assert 0.6 < found["stderr"] < 0.9  # questions of an image vary together: without that it would be 0.43


def mme_rows() -> list[dict]:
    """MME's questions with LaVIN's replies, as rows of the public data set."""
    rows = []
    for file in sorted((GOLD / "mme_lavin").glob("*.txt")):
        for line in file.read_text().splitlines():
            image, question, answer, reply = line.split("\t")
            row = {"question_id": f"{file.stem}/{image}", "question": question, "answer": answer, "category": file.stem}
            rows.append(row | {"reply": reply})
    return rows


def of_mme(part, answers):
    return load_replies(f"mme_{part}", answers, GOLD / "mme_lavin")


@needs
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mme_of_llava_15_13b_is_1531_3_and_295_4(protocol):
    """From its answer file, whose images have another suffix and folder than MME's own."""
    said = LLAVA / "MME/answers/llava-v1.5-13b.jsonl"
    found = report(of_mme("perception", said), protocol)
    assert (f"{found['value']:.1f}", found["n"], found["best"]) == ("1531.3", 2114, 2000)
    assert 15 < found["stderr"] < 40
    assert found["predictions"]["of_no_item"] == 260
    assert f"{report(of_mme('cognition', said), protocol)['value']:.1f}" == "295.4"


@needs
@pytest.mark.parametrize("protocol", ["official", "lmms"])
def test_mme_of_lavin_is_963_6_and_249_6(protocol):
    """Replies and gold in MME's own text files."""
    assert f"{report(of_mme('perception', GOLD / 'mme_lavin'), protocol)['value']:.1f}" == "963.6"
    assert f"{report(of_mme('cognition', GOLD / 'mme_lavin'), protocol)['value']:.1f}" == "249.6"


@needs
def test_mme_perception_of_lavin_is_963_6_as_the_paper_reads_it_too():
    found = report(of_mme("perception", GOLD / "mme_lavin"), "paper")
    assert f"{found['value']:.1f}" == "963.6"


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


OPTION = re.compile(r"^([A-Z])\. ", re.MULTILINE)


def scienceqa_row(row: dict) -> dict:
    """LLaVA's prompt taken apart: context, question, options."""
    text = row["prompt_cqm"].removeprefix("<image>\n")
    hint = ""
    if text.startswith("Context: "):
        hint, _, text = text.removeprefix("Context: ").partition("\n")
    first = OPTION.search(text).start()
    choices = [part.strip() for part in OPTION.split(text[first:])[2::2]]
    row = {"question": text[:first].strip(), "choices": choices, "answer": "ABCDE".index(row["answer"])}
    return row | {"hint": "" if hint == "N/A" else hint}


@pytest.mark.skipif(not (REAL / "scienceqa_sample").exists(), reason=f"no real data at {REAL}")
def test_scienceqa_of_llava_15_13b_on_300_real_questions(tmp_path):
    source, folder = REAL / "scienceqa_sample", tmp_path / "scienceqa"
    shutil.copytree(source / "images", folder / "images")
    rows = answers(source / "questions.jsonl")
    named = [{"id": r["question_id"], "image": r["image"].removeprefix("images/")} for r in rows]
    write_jsonl(folder / "test.jsonl", [scienceqa_row(r) | more for r, more in zip(rows, named, strict=True)])
    said = [{"question_id": r["question_id"], "text": r["llava_v1.5_13b_pred"]} for r in rows]
    write_jsonl(tmp_path / "said.jsonl", said)
    replies = load_replies("scienceqa", tmp_path / "said.jsonl", folder)
    for protocol in PROTOCOLS:
        found = report(replies, protocol)
        assert (f"{found['value']:.2f}", found["n"], found["unparsed"]) == ("54.33", 300, 0), protocol
    assert len(load_folder(folder, "scienceqa_img").items) == 300


@pytest.mark.skipif(not (REAL / "mmbench_samples").exists(), reason=f"no real data at {REAL}")
def test_mmbench_as_a_real_tsv_in_base64_with_rotations(tmp_path):
    source = REAL / "mmbench_samples"
    rows = []
    for k, row in enumerate(answers(source / "questions.jsonl")):
        letters, texts = list(row["options"]), list(row["options"].values())
        gold = letters.index(row["answer"])
        for turn in range(len(texts)):
            turned = texts[-turn:] + texts[:-turn] if turn else texts
            cells = dict.fromkeys("ABCD", "") | dict(zip(letters, turned, strict=True))
            picture = base64.b64encode((source / row["image"]).read_bytes()).decode() if turn == 0 else str(k)
            answer = letters[(gold + turn) % len(texts)]
            rows.append({"index": k + turn * 1_000_000, "question": row["question"], "hint": "", **cells}
                        | {"answer": answer, "category": "c", "image": picture})  # fmt: skip
    with (tmp_path / "MMBench_DEV_EN.tsv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    data = load_folder(tmp_path, "mmbench_en")
    assert len(data.items) == len(rows)
    assert all(len(i.pictures[0].read()) > 1000 for i in data.items)
    always = {i.id: Prediction(id=i.id, prediction="A", tokens=0, seconds=0) for i in data.items}
    rows_score, circular = score_task(data, always, "paper").scores
    assert (circular.value, circular.n) == (0, 34)
    assert rows_score.value == pytest.approx(rows_score.chance)


@pytest.mark.skipif(not (REAL / "mmmu_pro_sample").exists(), reason=f"no real data at {REAL}")
def test_real_questions_with_ten_options_and_several_images(tmp_path):
    source = REAL / "mmmu_pro_sample"
    shutil.copytree(source / "images", tmp_path / "images")
    rows = [
        {**row, "id": f"validation_Art_{k}", "options": str(row["options"])}
        | {name: value.removeprefix("images/") for name, value in row.items() if name.startswith("image_") and value}
        for k, row in enumerate(answers(source / "questions.jsonl"))
    ]
    write_jsonl(tmp_path / "validation.jsonl", rows)
    data = load_folder(tmp_path, "mmmu")
    assert max(len(i.choices) for i in data.items) == 10
    assert max(len(i.pictures) for i in data.items) > 1
    assert all(p.read() for i in data.items for p in i.pictures)
    for protocol in PROTOCOLS:
        said = {i.id: Prediction(id=i.id, prediction=f"({i.gold[0]})", tokens=0, seconds=0) for i in data.items}
        assert score_task(data, said, protocol).scores[0].value == 1, protocol
