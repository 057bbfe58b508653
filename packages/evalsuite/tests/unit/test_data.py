import base64
import csv
import json

import pytest
from kd_evalsuite.data import load_all, load_task
from kd_evalsuite.items import DataError
from kd_evalsuite.tables import data_digest, read_rows
from kd_evalsuite.tasks import TASKS

from packages.evalsuite.tests.helpers.benchmarks import cell, png, write_jsonl, write_parquet

SIZES = {"mme_perception": 24}


def test_all_sixteen_are_read_in_their_public_columns(benchmark_root):
    for data in load_all(benchmark_root, TASKS):
        assert len(data.items) == SIZES.get(data.key, 12), data.key
        assert all(item.gold and item.question for item in data.items)
        shown = [item for item in data.items if item.pictures]
        assert len(shown) == (8 if data.key == "scienceqa" else len(data.items))
        assert all(item.pictures[0].read() for item in shown)


def test_items_without_pictures_have_the_same_ids_and_know_that_they_have_one(benchmark_root):
    for key in TASKS:
        with_, without = (load_task(benchmark_root, key, pictures=p).items for p in (True, False))
        assert [i.id for i in with_] == [i.id for i in without]
        assert [len(i.pictures) for i in with_] == [len(i.pictures) for i in without], key


def test_ids_do_not_depend_on_the_order_of_the_file(tmp_path):
    rows = [{"question": f"q{k}", "options": ["x", "y"], "answer": "0", "image": cell(k)} for k in range(5)]
    write_parquet(tmp_path / "a/ai2d/test.parquet", rows)
    write_parquet(tmp_path / "b/ai2d/test.parquet", rows[::-1])
    ids = [{i.question: i.id for i in load_task(tmp_path / side, "ai2d").items} for side in "ab"]
    assert ids[0] == ids[1]


def test_a_limit_takes_whole_clusters_and_a_larger_one_takes_the_same_and_more(benchmark_root):
    for key in TASKS:
        few = [i.id for i in load_task(benchmark_root, key, limit=4).items]
        more = [i.id for i in load_task(benchmark_root, key, limit=8).items]
        assert set(few) <= set(more)
        assert 4 <= len(few) < 8 <= len(more) <= 12, key
    assert len(load_task(benchmark_root, "mmbench_en", limit=1).items) == 4


def test_every_problem_is_reported_at_once(benchmark_root, tmp_path):
    write_jsonl(tmp_path / "gqa/rows.jsonl", [{"id": "1", "question": "?"}])
    write_jsonl(tmp_path / "ai2d/rows.jsonl", [{"question": "?", "options": ["a"], "answer": "7"}])
    with pytest.raises(DataError) as error:
        load_all(tmp_path, ["gqa", "ai2d", "mmvp"])
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "columns imageId, answer; found id, question" in lines[0]
    assert "expected a gold answer among A, got 'H'" in lines[1]
    assert "Expected a benchmark folder" in lines[2]


def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(0))
    row = {"question": "?", "options": ["a", "b"], "answer": "0", "image": "../secret.png"}
    write_jsonl(tmp_path / "ai2d/rows.jsonl", [row])
    with pytest.raises(DataError, match="inside"):
        load_task(tmp_path, "ai2d")


def test_the_split_is_taken_where_files_are_named_after_splits(tmp_path):
    for split in ("train", "validation", "test"):
        rows = [{"question": split, "options": ["a", "b"], "answer": "0", "image": cell(0)}]
        write_parquet(tmp_path / f"ai2d/data/{split}-00000-of-00001.parquet", rows)
    assert [i.question for i in load_task(tmp_path, "ai2d").items] == ["test"]


def test_a_tsv_with_base64_images_is_read(tmp_path):
    (tmp_path / "mmbench_en").mkdir()
    with (tmp_path / "mmbench_en/MMBench_DEV_EN.tsv").open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"])
        writer.writerow(["5", "What?", "", "x", "y", "", "", "B", "c", base64.b64encode(png(1) * 3).decode()])
    (item,) = load_task(tmp_path, "mmbench_en").items
    assert (item.choices, item.gold, item.fields["hint"]) == (("x", "y"), ("B",), "")
    assert item.pictures[0].read() == png(1) * 3


def test_broken_files_are_named(tmp_path):
    for name, content in (("a.parquet", b"PAR1 no"), ("a.jsonl", b"{"), ("a.json", b"[1]")):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_rows(folder)


def test_the_digest_changes_with_names_and_contents(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{}]))
    first = data_digest(tmp_path)
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    second = data_digest(tmp_path)
    (tmp_path / "b.json").write_text(json.dumps([{}, {}]))
    assert len({first, second, data_digest(tmp_path)}) == 3
