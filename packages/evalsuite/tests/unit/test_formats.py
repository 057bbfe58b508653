"""Benchmarks in the forms in which their authors and other suites give them."""

import base64
import csv
import json

import pytest
from kd_evalsuite.data import load_folder
from kd_evalsuite.items import DataError

from packages.evalsuite.tests.helpers.benchmarks import png, write_jsonl


def tsv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def coded(k):
    return base64.b64encode(png(k)).decode()


def test_mmbench_as_a_tsv_whose_rotations_name_the_row_that_holds_their_picture(tmp_path):
    """VLMEvalKit's MMBench_DEV_EN.tsv."""
    rows = [
        {"index": turn * 1_000_000 + 7, "question": "Which?", "hint": "", "A": "x", "B": "y", "C": "", "D": "",
         "answer": "AB"[turn], "category": "c", "image": coded(1) if turn == 0 else "7"}
        for turn in range(2)
    ]  # fmt: skip
    items = load_folder(tsv(tmp_path / "MMBench_DEV_EN.tsv", rows), "mmbench_en").items
    assert [i.pictures[0].read() for i in items] == [png(1), png(1)]
    assert {i.cluster for i in items} == {"7"}
    assert items[0].choices == ("x", "y")


def test_a_table_of_realworldqa_whose_options_would_not_be_shown_is_refused(tmp_path):
    rows = [{"index": 0, "question": "Which?", "A": "x", "B": "y", "answer": "A", "image": coded(1)}]
    with pytest.raises(DataError, match="expected options within the questions, got columns A, B"):
        load_folder(tsv(tmp_path / "RealWorldQA.tsv", rows), "realworldqa")


def test_seedbench_as_a_tsv(tmp_path):
    row = {
        "index": 3,
        "question": "How many?",
        "A": "1",
        "B": "2",
        "C": "3",
        "D": "4",
        "answer": "C",
        "image": coded(2),
    }
    (item,) = load_folder(
        tsv(tmp_path / "SEEDBench_IMG.tsv", [row | {"category": "Counting"}]), "seedbench_image"
    ).items
    assert (item.id, item.choices, item.gold, item.category) == ("3", ("1", "2", "3", "4"), ("C",), "Counting")
    assert item.pictures[0].read() == png(2)


def test_scienceqa_as_its_problems_with_their_ids_and_pictures(tmp_path):
    problem = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "A fact.", "subject": "science"}
    problems = {
        "4": problem | {"image": None, "split": "test"},
        "11": problem | {"image": "image.png", "split": "test"},
        "12": problem | {"image": "image.png", "split": "train"},
    }
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    (tmp_path / "images/test/11").mkdir(parents=True)
    (tmp_path / "images/test/11/image.png").write_bytes(png(5))
    items = load_folder(tmp_path, "scienceqa").items
    assert [i.id for i in items] == ["4", "11"]
    assert items[1].pictures[0].read() == png(5)
    assert [i.id for i in load_folder(tmp_path, "scienceqa_img").items] == ["11"]


def test_questions_below_a_key_as_textvqa_docvqa_and_seedbench_have_them(tmp_path):
    text = {"question_id": 1, "question": "what?", "answers": ["x"] * 10, "image_id": "i", "image": "a.png"}
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "TextVQA_0.5.1_val.json").write_text(json.dumps({"dataset_type": "val", "data": [text]}))
    (item,) = load_folder(tmp_path / "TextVQA_0.5.1_val.json", "textvqa").items
    assert (item.id, item.cluster, item.pictures[0].read()) == ("1", "i", png(0))
    doc = {"questionId": 9, "question": "total?", "answers": ["$5"], "image": "a.png", "docId": 3}
    (tmp_path / "val_v1.0.json").write_text(json.dumps({"dataset_split": "val", "data": [doc]}))
    assert load_folder(tmp_path / "val_v1.0.json", "docvqa").items[0].gold == ("$5",)
    seed = {
        "question_id": "1",
        "question": "?",
        "answer": "A",
        "question_type_id": 5,
        "data_type": "image",
        "data_id": "a",
    }
    seed |= {f"choice_{c}": c for c in "abcd"}
    (tmp_path / "SEED-Bench.json").write_text(json.dumps({"questions": [seed], "question_type": {"Counting": 5}}))
    assert load_folder(tmp_path / "SEED-Bench.json", "seedbench_image").items[0].category == "instance counting"


def test_chartqa_as_its_two_files_with_the_charts_beside_them(tmp_path):
    root = tmp_path / "ChartQA Dataset"
    (root / "test/png").mkdir(parents=True)
    (root / "test/png/7.png").write_bytes(png(7))
    for part in ("human", "augmented"):
        row = {"imgname": "7.png", "query": f"What of {part}?", "label": "3"}
        (root / f"test/test_{part}.json").write_text(json.dumps([row]))
    (root / "train").mkdir()
    (root / "train/train_human.json").write_text(json.dumps([{"imgname": "1.png", "query": "?", "label": "1"}]))
    items = load_folder(root, "chartqa").items
    assert [i.category for i in items] == ["augmented_test", "human_test"]
    assert [i.pictures[0].read() for i in items] == [png(7)] * 2


def test_mme_as_folders_of_questions_and_images(tmp_path):
    """MME_Benchmark_release_version: `artwork/images` beside `artwork/questions_answers_YN`, or both in one folder."""
    for folder, name in (("artwork/questions_answers_YN", "7"), ("color", "0001")):
        (tmp_path / folder).mkdir(parents=True)
        lines = "Is it x? Please answer yes or no.\tYes\nIs it y? Please answer yes or no.\tNo\n"
        (tmp_path / folder / f"{name}.txt").write_text(lines)
    (tmp_path / "artwork/images").mkdir()
    (tmp_path / "artwork/images/7.png").write_bytes(png(1))
    (tmp_path / "color/0001.jpg").write_bytes(png(2))
    items = load_folder(tmp_path, "mme_perception").items
    assert [(i.category, i.gold[0]) for i in items] == [
        ("artwork", "Yes"),
        ("artwork", "No"),
        ("color", "Yes"),
        ("color", "No"),
    ]
    assert [i.pictures[0].read() for i in items[1:3]] == [png(1), png(2)]
    assert len({i.cluster for i in items}) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", b"[1, 2]", "expected a list of objects"),
        ("x.json", b'{"a": 1}', "expected a list of objects"),
        ("x.json", b"[" * 200_000, "not valid JSON"),
        ("x.json", b"\xff\xfe", "expected UTF-8"),
        ("x.jsonl", b'{"id": 1}\nnot json\n', "not valid JSON lines"),
        ("x.jsonl", b"[1]\n", "expected an object a line, got"),
        ("x.csv", b"id,question\n1,a,b,c\n", "expected columns|more cells"),
        ("x.tsv", b"\xff\xfe\n", "not a readable table"),
        ("x.parquet", b"PAR1", "not a readable parquet file"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    for key in ("gqa", "ai2d", "textvqa"):
        with pytest.raises(DataError, match=said):
            load_folder(tmp_path, key)


def test_a_row_that_lacks_a_column_is_named(tmp_path):
    rows = [{"question": "?", "options": list("wxyz"), "answer": "0"}] * 2 + [{"question": "?", "answer": "0"}]
    write_jsonl(tmp_path / "ai2d.jsonl", rows)
    with pytest.raises(DataError, match="row 3: expected columns options; found question, answer"):
        load_folder(tmp_path, "ai2d")


def test_equal_pictures_of_a_table_are_held_once(benchmark_root):
    items = load_folder(benchmark_root, "docvqa").items
    assert len({id(i.pictures[0].data) for i in items}) == len({i.pictures[0].data for i in items}) == 4
