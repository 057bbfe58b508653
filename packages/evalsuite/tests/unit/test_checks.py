"""Everything that is wrong with any benchmark is found before the first question, all at once."""

import json
import shutil
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kd_evalsuite.checks import examine, require_ready
from kd_evalsuite.cli import app
from kd_evalsuite.items import DataError
from kd_evalsuite.tasks import EVERY, TASKS
from typer.testing import CliRunner

from packages.evalsuite.tests.helpers.benchmarks import write_jsonl

RUN = CliRunner()


@pytest.fixture
def root(benchmark_root, tmp_path):
    """A copy to break."""
    return shutil.copytree(benchmark_root, tmp_path / "benchmarks")


def table_of(root, key):
    """The first parquet file of a benchmark that holds questions."""
    return next(f for f in sorted((root / key).rglob("*.parquet")) if "images" not in f.parent.name)


def rename_column(root, key):
    """Rename the column of answers, so that it is missing."""
    if key == "mmvp":
        file = root / "mmvp/Questions.csv"
        file.write_text(file.read_text().replace("Correct Answer", "Gold", 1))
        return "Correct Answer"
    file = table_of(root, key)
    table = pq.read_table(file)
    name = next(c for c in ("answer", "answers") if c in table.column_names)
    pq.write_table(table.rename_columns([f"{c}_x" if c == name else c for c in table.column_names]), file)
    return name


def test_a_whole_suite_is_ready_and_its_numbers_are_notes(benchmark_root):
    findings = require_ready(benchmark_root, TASKS)
    assert [f.task for f in findings] == list(TASKS)
    assert all("the public data set has" in f.notes[0] for f in findings)
    with pytest.raises(DataError) as caught:
        require_ready(benchmark_root, TASKS, complete=True)
    assert len(str(caught.value).splitlines()) == 16


def test_a_missing_column_of_every_benchmark_is_named_at_once_and_quickly(root):
    missing = {key: rename_column(root, key) for key in TASKS}
    start = time.process_time()
    with pytest.raises(DataError) as caught:
        require_ready(root, TASKS)
    assert time.process_time() - start < 10
    lines = str(caught.value).splitlines()
    assert len(lines) == 16
    for line, (key, name) in zip(lines, missing.items(), strict=True):
        assert line.startswith(f"{key}: ")
        assert f"expected columns {name}; found" in line


def test_missing_folders_wrong_splits_double_ids_halved_pairs_and_lost_pictures_are_found_together(root):
    shutil.rmtree(root / "ai2d")
    chart = table_of(root, "chartqa")
    chart.rename(chart.with_name("train-00000-of-00001.parquet"))
    doc = table_of(root, "docvqa")
    table = pq.read_table(doc)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), doc)
    mme = table_of(root, "mme_perception")
    pq.write_table(pq.read_table(mme).slice(1), mme)
    csv = root / "mmvp/Questions.csv"
    csv.write_text("".join(csv.read_text().splitlines(keepends=True)[:-1]))
    (root / "mmvp/MMVP Images/3.jpg").unlink()
    found = {}
    with pytest.raises(DataError) as caught:
        require_ready(root, TASKS)
    for line in str(caught.value).splitlines():
        found.setdefault(line.split(":")[0], []).append(line)
    assert "Expected a folder ai2d" in found["ai2d"][0]
    assert "found train-00000-of-00001.parquet" in found["chartqa"][0]
    assert "expected ids to be unique, 1 are repeated" in found["docvqa"][0]
    assert "1 images do not have two questions, e.g. color/color/0.png" in found["mme_perception"][0]
    assert "1 pairs are not whole, e.g. 6" in found["mmvp"][0]
    assert "1 of 11 pictures are not there" in found["mmvp"][1]
    assert set(found) == {"ai2d", "chartqa", "docvqa", "mme_perception", "mmvp"}


def test_pictures_are_decoded_when_asked(root):
    (root / "mmvp/MMVP Images/3.jpg").write_bytes(b"<html>not found</html>")
    assert not examine(root, "mmvp").problems
    (problem,) = examine(root, "mmvp", pictures=True).problems
    assert "1 pictures cannot be decoded, e.g. 3 (" in problem


def test_blank_questions_and_answers_are_found(root):
    csv = root / "mmvp/Questions.csv"
    csv.write_text(csv.read_text().replace("Is it red or blue?", " ", 2))
    assert examine(root, "mmvp").problems == ("2 items have no question, e.g. 1, 2",)


def test_the_command_tells_all_and_fails(root, tmp_path):
    fine = RUN.invoke(app, ["doctor", "--data", str(root)])
    assert fine.exit_code == 0, fine.output
    rename_column(root, "gqa")
    (root / "scienceqa").rename(tmp_path / "elsewhere")
    done = RUN.invoke(app, ["doctor", "--data", str(root), "--tasks", "gqa,scienceqa,mmvp", "--json"])
    assert done.exit_code == 2
    found = {f["task"]: f for f in json.loads(done.stdout)}
    assert found["gqa"]["problems"]
    assert found["scienceqa"]["problems"]
    assert not found["mmvp"]["problems"]
    assert "gqa, scienceqa" in done.stderr


def test_lost_pictures_stop_a_run_before_the_first_question(root):
    from kd_evalsuite.data import load_all

    for k in (3, 5):
        (root / f"mmvp/MMVP Images/{k}.jpg").unlink()
    assert len(load_all(root, ["mmvp"], pictures=False)[0].items) == 12
    with pytest.raises(DataError, match="mmvp: 2 of 12 pictures are not there"):
        load_all(root, ["mmvp", "gqa"])


def without_pictures(root):
    """Benchmarks in their authors' columns, but without images, as answers alone are scored on."""
    options = list("wxyz")
    write_jsonl(root / "ai2d/ai2d.jsonl", [{"question": f"{k}?", "options": options, "answer": "1"} for k in range(8)])
    mme = [
        {"question_id": f"color/{k // 2}.png", "question": f"Is it {k}?", "answer": "Yes", "category": "color"}
        for k in range(8)
    ]
    write_jsonl(root / "mme_perception/test.jsonl", mme)
    science = [{"question": f"{k}?", "choices": options, "answer": 0, "hint": ""} for k in range(8)]
    write_jsonl(root / "scienceqa/test.jsonl", science)
    text = [{"question_id": k, "question": f"{k}?", "image_id": f"i{k}", "answers": ["x"] * 10} for k in range(8)]
    (root / "textvqa").mkdir()
    (root / "textvqa/TextVQA_0.5.1_val.json").write_text(json.dumps({"data": text}))
    return ["ai2d", "mme_perception", "scienceqa", "textvqa_no_ocr"]


def test_items_without_a_picture_are_asked_only_when_that_is_asked_for(tmp_path):
    keys = without_pictures(tmp_path)
    with pytest.raises(DataError) as caught:
        require_ready(tmp_path, keys)
    lines = [line.partition(";")[0].partition(",")[0] for line in str(caught.value).splitlines()]
    assert lines == [f"{key}: 8 of 8 items have no picture" for key in keys if key != "scienceqa"]
    require_ready(tmp_path, keys, blind=True)
    assert any("8 of 8 items have no picture" in note for note in examine(tmp_path, "scienceqa").notes)
    assert examine(tmp_path, "scienceqa_img").problems


def test_text_alone_is_what_some_of_scienceqa_asks_about(benchmark_root):
    assert not [key for key in EVERY if examine(benchmark_root, key).problems]
    assert not any("picture" in note for note in examine(benchmark_root, "scienceqa").notes)


def test_scoring_needs_no_pictures(tmp_path):
    from kd_evalsuite.data import load_folder

    without_pictures(tmp_path)
    rows = [{"id": i.id, "prediction": i.gold[0]} for i in load_folder(tmp_path, "ai2d").items]
    write_jsonl(tmp_path / "said.jsonl", rows)
    command = ["score", "--task", "ai2d", "--predictions", str(tmp_path / "said.jsonl"), "--json"]
    done = RUN.invoke(app, [*command, "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["value"] == 100


def test_a_prompt_that_lists_ocr_tokens_is_not_asked_without_any(root):
    table = pq.read_table(table_of(root, "textvqa"))
    pq.write_table(table.drop_columns("ocr_tokens"), table_of(root, "textvqa"))
    for blind in (True, False):
        with pytest.raises(DataError, match=r"textvqa: no item has ocr_tokens.*textvqa_no_ocr"):
            require_ready(root, ["textvqa"], blind=blind)
    found = [*require_ready(root, ["textvqa"], protocol="lmms"), examine(root, "textvqa")]
    assert all("no item has ocr_tokens" in " ".join(f.notes) for f in found)
    (plain,) = require_ready(root, ["textvqa_no_ocr"])
    assert "ocr_tokens" not in " ".join(plain.notes)


def test_predict_is_told_what_is_missing_and_blind_runs_go_on(tmp_path):
    from kd_evalsuite import commands
    from kd_evalsuite.config import EvalParams
    from kd_evalsuite.models.find import Found
    from kd_evalsuite.records import ModelRef

    keys = without_pictures(tmp_path / "data")
    found = Found(ModelRef(kind="vlm", name="m", sha256="0" * 64), lambda: None)
    params = EvalParams(data=tmp_path / "data", tasks=keys)
    with pytest.raises(DataError, match="8 of 8 items have no picture"):
        commands.predict(params, found, tmp_path / "out", blind=False, replace=False, dry_run=True)
    assert commands.predict(params, found, tmp_path / "out", blind=True, replace=False, dry_run=True)
