"""Answer files as other suites write them, and which reply belongs to which item."""

import json

import pytest
from kd_evalsuite.items import DataError
from kd_evalsuite.records import Prediction
from kd_evalsuite.single import load_replies, report

from packages.evalsuite.tests.helpers.benchmarks import write_jsonl
from packages.evalsuite.tests.helpers.replies import items_of, told

FORMS = {
    "llava": lambda item, said: {"question_id": item.id, "prompt": item.question, "text": said, "model_id": "m"},
    "cambrian": lambda item, said: {"questionId": item.id, "answer": said, "gt_answer": "?", "model_id": "m"},
    "mathvista": lambda item, said: {"pid": item.id, "response": said},
    "vlmevalkit": lambda item, said: {"index": item.id, "question": item.question, "answer": "?", "prediction": said},
    "ours with more": lambda item, said: Prediction(id=item.id, prediction=said, tokens=3, seconds=0.1).model_dump(),
}


@pytest.mark.parametrize("form", FORMS)
def test_replies_are_read_as_other_suites_write_them(form, benchmark_root, tmp_path):
    file = told(benchmark_root, "ai2d", tmp_path, line=FORMS[form])
    assert report(load_replies("ai2d", file, benchmark_root), "paper")["value"] == 100


def test_replies_of_lmms_eval_are_by_position(benchmark_root, tmp_path):
    rows = [
        {"doc_id": k, "target": "?", "resps": [[i.gold[0]]], "filtered_resps": [i.gold[0]]}
        for k, i in enumerate(items_of(benchmark_root, "ai2d"))
    ]
    write_jsonl(tmp_path / "samples.jsonl", rows[::-1])
    assert report(load_replies("ai2d", tmp_path / "samples.jsonl", benchmark_root), "paper")["value"] == 100


@pytest.mark.parametrize("form", ["vlmevalkit", "cambrian", "mathvista"])
@pytest.mark.parametrize("nothing", [None, [None]])
def test_a_reply_that_is_null_is_none_and_never_the_gold_answer_beside_it(form, nothing, benchmark_root, tmp_path):
    reply = {"vlmevalkit": "prediction", "cambrian": "answer", "mathvista": "response"}[form]
    for first in (1, 2):  # of all rows, and of every second
        rows = [{**FORMS[form](item, "Z"), "answer": item.gold[0]} for item in items_of(benchmark_root, "ai2d")]
        for row in rows[::first]:
            row[reply] = nothing
        write_jsonl(tmp_path / "p.jsonl", rows)
        with pytest.raises(DataError, match=f"'{reply}' is null"):
            load_replies("ai2d", tmp_path / "p.jsonl", benchmark_root)


def test_positions_count_the_whole_data_set_where_the_task_is_a_part_of_it(benchmark_root, tmp_path):
    whole = [*items_of(benchmark_root, "mme_cognition"), *items_of(benchmark_root, "mme_perception")]
    whole.sort(key=lambda item: item.row)
    assert [item.row for item in whole] == list(range(36))
    rows = [{"doc_id": item.row, "target": item.gold[0], "filtered_resps": [item.gold[0]]} for item in whole]
    write_jsonl(tmp_path / "samples.jsonl", rows)
    for part, others in (("mme_perception", 12), ("mme_cognition", 24)):
        found = report(load_replies(part, tmp_path / "samples.jsonl", benchmark_root), "lmms")
        assert found["value"] == found["best"]
        assert found["predictions"]["of_no_item"] == others


def test_positions_in_another_order_are_refused_by_the_answers_beside_them(benchmark_root, tmp_path):
    items = items_of(benchmark_root, "ai2d")
    rows = [{"doc_id": k, "target": i.gold[0], "filtered_resps": [i.gold[0]]} for k, i in enumerate(items[::-1])]
    write_jsonl(tmp_path / "samples.jsonl", rows)
    with pytest.raises(DataError, match="are not those of the data at these positions"):
        load_replies("ai2d", tmp_path / "samples.jsonl", benchmark_root)


def test_replies_in_tables_and_in_json(benchmark_root, tmp_path):
    items = items_of(benchmark_root, "ai2d")
    (tmp_path / "p.tsv").write_text("index\tprediction\n" + "".join(f"{i.id}\t{i.gold[0]}\n" for i in items))
    (tmp_path / "p.json").write_text(json.dumps({i.id: {"response": i.gold[0]} for i in items}))
    for name in ("p.tsv", "p.json"):
        assert report(load_replies("ai2d", tmp_path / name, benchmark_root), "paper")["value"] == 100


def test_mmes_replies_are_told_apart_by_image_and_question_and_those_of_the_other_part_are_counted(
    benchmark_root, tmp_path
):
    rows = []
    for part in ("mme_perception", "mme_cognition"):
        for item in items_of(benchmark_root, part):
            category, name = item.fields["question_id"].split("/")
            asked = (
                item.question.removesuffix(" Please answer yes or no.") + "\nAnswer the question using a single word."
            )
            rows.append({"question_id": f"{category}/images/{name}", "prompt": asked, "text": item.gold[0]})
    write_jsonl(tmp_path / "mme.jsonl", rows)
    for part, others in (("mme_perception", 12), ("mme_cognition", 24)):
        found = report(load_replies(part, tmp_path / "mme.jsonl", benchmark_root), "paper")
        assert found["value"] == found["best"]
        assert found["predictions"]["of_no_item"] == others


def test_mme_is_read_from_its_text_files_with_and_without_replies(benchmark_root, tmp_path):
    items = items_of(benchmark_root, "mme_perception")
    for category in ("color", "count"):
        lines = [
            "\t".join([i.fields["question_id"].split("/")[1], i.question, i.gold[0], f"{i.gold[0]}, it is."])
            for i in items
            if i.category == category
        ]
        (tmp_path / f"{category}.txt").write_text("\n".join(lines) + "\n")
    found = report(load_replies("mme_perception", tmp_path, tmp_path), "paper")
    assert (found["value"], found["n"]) == (400, 24)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "7", "prediction": "x"}], "12 of 12 items have no prediction"),
        ([{"name": "7", "prediction": "x"}], "expected an id .*; found name, prediction"),
        ([{"id": "7", "says": "x"}], "expected a reply .*; found id, says"),
        (["7"], "expected an object a line, got 7"),
        ([], "found none"),
    ],
)
def test_a_file_that_is_something_else_is_said_to_be(rows, message, benchmark_root, tmp_path):
    write_jsonl(tmp_path / "p.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load_replies("gqa", tmp_path / "p.jsonl", benchmark_root)
