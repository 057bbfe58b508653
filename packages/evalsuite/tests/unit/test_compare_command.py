import csv
import io
import json
import shutil

import pytest
from kd_evalsuite.cli import app
from kd_evalsuite.compare import How, compare
from kd_evalsuite.data import load_all
from kd_evalsuite.items import DataError
from kd_evalsuite.results import find_folders, read_results, told_apart
from kd_evalsuite.view_compare import comparison_view
from kd_evalsuite.words import p_value, signed
from rich.console import Console
from typer.testing import CliRunner

from packages.evalsuite.tests.helpers import scored
from packages.evalsuite.tests.helpers.replies import predicted

RUN = CliRunner()
FAST = How(samples=500)


@pytest.fixture
def pair(tmp_path):
    return scored.two_models(tmp_path)


def test_models_are_named_by_folder_by_parent_or_by_name(pair):
    root = pair[0].parent
    assert find_folders([str(p) for p in pair], None) == pair
    assert find_folders([str(root)], None) == pair
    assert find_folders(["vlm-b", "a"], root) == pair[::-1]
    with pytest.raises(DataError, match="did you mean 'vlm-b'"):
        find_folders(["vlm-bb"], root)
    with pytest.raises(DataError, match="evalsuite score first"):
        find_folders([str(root / "nothing")], None)


def test_compare_prints_tables_words_and_flips(pair):
    done = RUN.invoke(app, ["compare", *map(str, pair), "--samples", "500", "--flips", "1"])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    for said in ("A vlm-a", "B ahead", "not resolvable", "detectable", "GQA: B better than A on", "“<b>reply"):
        assert said in text
    assert "\x1b" not in done.output


@pytest.mark.parametrize("width", [80, 106, 200])
def test_nothing_is_cut_off_on_a_narrow_terminal(pair, width):
    stream = io.StringIO()
    Console(file=stream, width=width).print(comparison_view(compare(read_results(pair), how=FAST), width))
    assert "…" not in stream.getvalue()
    assert "B ahead" in stream.getvalue()
    assert ("detectable" in stream.getvalue()) == (width >= 106)
    assert max(map(len, stream.getvalue().splitlines())) <= width


def test_compare_writes_markdown_csv_and_json_twice_the_same(pair, tmp_path):
    for name in ("one", "two"):
        out = tmp_path / name
        done = RUN.invoke(
            app, ["compare", *map(str, pair), "--samples", "500", "--flips", "2", "--out", str(out), "--json"]
        )
        assert done.exit_code == 0, done.output
    files = ["compare.csv", "compare.json", "compare.md", "flips.csv", "flips.html"]
    assert sorted(p.name for p in out.iterdir()) == files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    whole = json.loads(done.stdout)
    assert whole == json.loads((out / "compare.json").read_text())
    assert whole["schema"] == "kd-comparison/1"
    assert {d["verdict"] for d in whole["differences"]} == {"vlm-b ahead", "not resolvable"}
    rows = list(csv.DictReader((out / "flips.csv").open()))
    assert rows[0]["reply_1"].startswith("<b>reply")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "Expected scores.json"),
        (["{a}"], "at least two models"),
        (["{a}", "{b}", "--task", "gqaa"], "No model was scored on gqaa"),
        (["{a}", "{b}", "--predictions", "{a}"], "Expected one folder of predictions for each"),
        (["{a}", "{b}", "--data", "nowhere", "--flips", "1", "--task", "gqa"], "Expected a benchmark folder"),
    ],
)
def test_wrong_input_is_refused_with_exit_code_2(pair, arguments, said):
    filled = [one.format(a=pair[0], b=pair[1]) for one in arguments]
    done = RUN.invoke(app, ["compare", *filled])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_answer_files_of_another_suite_are_scored_and_compared(benchmark_root, tmp_path):
    (data,) = load_all(benchmark_root, ["gqa"], pictures=False)
    for name, right in (("llava-7b", 3), ("llava-13b", 12)):
        rows = [{"question_id": i.id, "text": i.gold[0] if k < right else "x"} for k, i in enumerate(data.items)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [str(tmp_path / f"{name}.jsonl") for name in ("llava-7b", "llava-13b")]
    done = RUN.invoke(app, ["compare", *files, "--task", "gqa", "--data", str(benchmark_root / "gqa"), "--json"])
    assert done.exit_code == 0, done.output
    whole = json.loads(done.stdout)
    assert whole["models"] == ["llava-7b", "llava-13b"]
    assert [(d["value_first"], d["value_second"]) for d in whole["differences"]] == [(25.0, 100.0)]
    done = RUN.invoke(app, ["compare", *files])
    assert done.exit_code == 2
    assert "pass --task KEY and --data FOLDER" in " ".join(done.output.split())


def test_what_a_manifest_beside_an_answer_file_says_is_compared_too(benchmark_root, tmp_path):
    def compare(*files, options=()):
        command = ["compare", *map(str, files), "--task", "ai2d", "--data", str(benchmark_root), "--json", *options]
        done = RUN.invoke(app, command)
        return done.exit_code, " ".join(done.output.split()), done

    said = predicted(benchmark_root, "ai2d", tmp_path / "said")
    chosen = predicted(benchmark_root, "ai2d", tmp_path / "chosen", mode="loglikelihood")
    code, output, _ = compare(said, chosen)
    assert code == 2
    assert "scored in different ways" in output
    assert "loglikelihood-paper-1+" in output
    lmms = predicted(benchmark_root, "ai2d", tmp_path / "lmms", protocol="lmms", prompts="lmms")
    assert compare(said, lmms)[0] == 2
    assert compare(said, lmms, options=["--protocol", "paper"])[0] == 0

    blind = predicted(benchmark_root, "ai2d", tmp_path / "blind", lambda i: "A", blind=True, limit=5)
    some = predicted(benchmark_root, "ai2d", tmp_path / "some", limit=5)
    code, output, done = compare(some, blind)
    assert code == 0, output
    assert json.loads(done.stdout)["models"] == ["ai2d", "ai2d-blind"]
    assert "7 items were not answered by all models" in compare(said, some)[1]


@pytest.mark.parametrize("command", ["compare", "report", "forensics"])
def test_every_command_about_results_has_help_with_an_example(command):
    done = RUN.invoke(app, [command, "--help"])
    assert done.exit_code == 0
    assert "Examples:" in done.output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("scores.json", b"{", "scores.json: not a file of scores"),
        ("scores.json", b"\xff\xfe", "scores.json: not a file of scores"),
        ("items.jsonl", b"{}\n", "items.jsonl:1: not the score of an item"),
        ("items.jsonl", b"\xff\n", "items.jsonl:1: not the score of an item"),
        ("items.jsonl", None, "Expected the scores of items at"),
    ],
)
def test_broken_files_are_named(pair, name, content, said):
    (pair[1] / name).unlink()
    if content is not None:
        (pair[1] / name).write_bytes(content)
    done = RUN.invoke(app, ["compare", *map(str, pair)])
    assert done.exit_code == 2
    assert said in done.output.replace("\n", " ").replace("  ", " ") or said in done.output.replace("\n", "")


def test_an_item_that_comes_twice_is_refused(pair):
    lines = (pair[0] / "items.jsonl").read_text()
    (pair[0] / "items.jsonl").write_text(lines + lines.splitlines()[0] + "\n")
    with pytest.raises(DataError, match="item '0' of gqa is there twice"):
        read_results(pair)


def test_the_same_model_twice_is_told_apart_by_folder(pair, tmp_path):
    folders = [pair[0], shutil.copytree(pair[0], tmp_path / "again")]
    assert [r.label for r in told_apart(read_results(folders), folders)] == ["a", "again"]
    with pytest.raises(DataError, match="Expected different models"):
        told_apart(read_results([pair[0], pair[0]]), [pair[0], pair[0]])


def test_numbers_are_written_with_a_real_minus_and_zero_without_a_sign():
    assert [signed(x) for x in (0.26, -0.26, 0.0, -0.04, float("nan"))] == ["+0.3", "−0.3", "0.0", "0.0", "--"]
    assert [p_value(p) for p in (0.0001, 0.04, 1.0)] == ["< .001", ".040", "1.000"]
