"""Files of records: the same rows from every form, at any size, with little memory."""

import json
import os
import pickle
import random
import time
import tracemalloc
from multiprocessing import get_context

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_vlm import rows as module
from kd_vlm.rows import open_rows

ROWS = [
    {"id": str(i), "image": f"{i}.jpg", "conversations": [{"from": "human", "value": f'é "{i}" ]}},{{[ \\ \n 漢 😀'}]}
    for i in range(57)
]


@pytest.mark.parametrize("chunk", [3, 64, 1 << 20])
@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_an_array_is_read_row_by_row(tmp_path, monkeypatch, chunk, style):
    monkeypatch.setattr(module, "CHUNK", chunk)
    (tmp_path / "x.json").write_text(json.dumps(ROWS, **style), encoding="utf-8")
    rows = open_rows(tmp_path / "x.json")
    assert list(rows) == ROWS
    assert rows[-1] == ROWS[-1]
    assert rows[3:5] == ROWS[3:5]
    with pytest.raises(IndexError):
        rows[57]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(values, max_size=6), st.integers(1, 40), st.booleans())
def test_any_json_array_comes_back(tmp_path_factory, data, chunk, ascii_only):
    path = tmp_path_factory.mktemp("rows") / "x.json"
    path.write_text("\ufeff \n" + json.dumps(data, ensure_ascii=ascii_only) + "\n ", encoding="utf-8", errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        assert list(open_rows(path)) == json.loads(path.read_text(encoding="utf-8-sig"))


def test_lines_and_parquet_read_as_the_array_does(tmp_path):
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet", row_group_size=10)
    for name in ("x.jsonl", "x.parquet"):
        rows = open_rows(tmp_path / name)
        assert list(rows) == ROWS
        assert [rows[i] for i in (56, 0, 10, 9)] == [ROWS[i] for i in (56, 0, 10, 9)]
        assert list(pickle.loads(pickle.dumps(rows))) == ROWS  # noqa: S301 - what a worker process gets


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1}, {"a"', "near byte 11"),
        ('[{"a": 1} {"a": 2}]', "expected , or ]"),
        ('[{"a": 1},]', "after the comma"),
        ('{"a": 1}', "one array"),
        ("", "the end"),
        ('[{"a": 1}] x', "nothing after"),
    ],
)
def test_broken_arrays_say_where(tmp_path, text, says):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=f"x.json: not valid JSON near byte .*{says}|{says}"):
        open_rows(tmp_path / "x.json")


def test_a_broken_line_is_that_rows_error_alone(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    rows = open_rows(tmp_path / "x.jsonl")
    assert (rows[0], rows[2]) == ({"a": 1}, {"a": 3})
    with pytest.raises(ValueError, match="not valid JSON"):
        rows[1]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        open_rows(tmp_path / "none.json")
    for name in ("x.csv", "x.parquet"):
        (tmp_path / name).write_text("a,b")
        with pytest.raises(ValueError, match="parquet"):
            open_rows(tmp_path / name)


def test_a_large_array_takes_little_memory(tmp_path, monkeypatch):
    """30 MB of samples through windows of 64 KiB."""
    monkeypatch.setattr(module, "CHUNK", 1 << 16)
    row = json.dumps({"id": "x", "conversations": [{"from": "human", "value": "a" * 3000}]})
    with (tmp_path / "x.json").open("w") as file:
        file.write("[" + ",".join([row] * 10_000) + "]")
    tracemalloc.start()
    rows = open_rows(tmp_path / "x.json")
    n_bytes = sum(len(rows[i]["conversations"][0]["value"]) for i in range(0, len(rows), 500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_bytes == 20 * 3000
    assert peak < 4e6


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.parquet"])
def test_forked_processes_read_the_same_open_file_at_once(tmp_path, name):
    """As data workers do."""
    many = ROWS * 20
    if name == "x.parquet":
        pq.write_table(pa.Table.from_pylist(many), tmp_path / name, row_group_size=100)
    else:
        text = json.dumps(many) if name == "x.json" else "\n".join(map(json.dumps, many))
        (tmp_path / name).write_text(text)
    rows = open_rows(tmp_path / name)
    assert rows[0] == many[0], "the file is open before the processes begin"
    workers = [get_context("fork").Process(target=_read_all, args=(rows, many, seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def _read_all(rows, expected, seed):
    draw = random.Random(seed)
    until = time.monotonic() + 0.5  # together with the others, however busy the machine is
    right = True
    while right and time.monotonic() < until:
        i = draw.randrange(len(rows))
        right = rows[i] == expected[i]
    os._exit(int(not right))
