"""The form in which benchmarks say what they found, and the page that is made of it."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import results
from benchmarks.figures import Figure, line, read, said, show
from benchmarks.results import Run
from benchmarks.table import BENCHMARKS, HELPERS, Benchmark

ROOT = Path(__file__).resolve().parents[1]
FASTER = Figure("ours against theirs", 2.96, at_least=2.8, limit=3.33, limit_of="operations", seen="13.6 s and 4.6 s")
SLOW = Figure("of the first batch", 1.2, "s", at_most=1, limit=0.3, limit_of="decoding")


def run_with(*figures, failure=""):
    return Run("python benchmarks/some.py", "2026-01-02", "a machine", 0.5, 10.0, 9.0, 1.5, list(figures), failure)


def test_a_bar_is_held_at_its_own_value_and_missed_beyond_it():
    assert Figure("", 2.8, at_least=2.8).held
    assert Figure("", 1.0, at_most=1.0).held
    assert not Figure("", 2.79, at_least=2.8).held
    assert not Figure("", 1.01, at_most=1.0).held
    assert not Figure("", float("nan"), at_least=0).held
    assert Figure("", 5.0).held is None


def test_what_is_reached_of_a_limit_is_one_at_the_limit_whichever_way_is_better():
    assert FASTER.reached == pytest.approx(2.96 / 3.33)
    assert SLOW.reached == pytest.approx(0.25)
    assert Figure("", 1.0, at_most=1, limit=1).reached == Figure("", 3.0, limit=3).reached == 1


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(2.9634, "x", "2.96x"), (358.2, "x", "358x"), (0.32, "%", "0.32 %"), (3.2e-7, "", "3.2e-07"), (0.001, "", "0.001"),
     (0, "", "0"), (12345.6, "MB", "12346 MB"), (100.0, "%", "100 %"), (10.0, "s", "10 s")],
)  # fmt: skip
def test_numbers_have_three_digits_and_their_unit(value, unit, text):
    assert said(value, unit) == text


def test_a_line_says_bar_and_limit():
    assert line(FASTER) == (
        "ours against theirs: 2.96x; 13.6 s and 4.6 s; limit 3.33x (operations), 89% reached; at least 2.8x: held"
    )
    assert line(SLOW).endswith("at most 1 s: MISSED")


def test_what_is_shown_is_read_again(capsys):
    show(FASTER, SLOW)
    assert read(capsys.readouterr().out) == [FASTER, SLOW]


@pytest.mark.parametrize("output", ["", "1.5x", '{"figures": [{"what": "no value"}]}', "[]"])
def test_other_output_is_no_result(output):
    with pytest.raises(ValueError, match="figures"):
        read(output)


def test_a_run_fails_misses_or_holds():
    assert run_with(FASTER).verdict == "held"
    assert run_with(FASTER, SLOW).verdict == "missed"
    assert run_with(failure="out of memory").verdict == "failed"


def test_the_page_shows_what_missed_and_what_failed():
    first, second, third = BENCHMARKS[:3]
    page = results.render(
        {first.name: run_with(FASTER), second.name: run_with(SLOW), third.name: run_with(failure="a|b")}
    )
    assert (
        "| ours against theirs<br>13.6 s and 4.6 s | 2.96x | at least 2.8x | 3.33x: operations<br>89 % reached |"
        in page
    )
    assert "at most 1 s, **missed**" in page
    assert f"| **{third.name}** | **failed**: a\\|b |" in page
    assert "A: a machine." in page
    assert f"- `{BENCHMARKS[3].name}`" in page


def test_a_run_of_one_changes_its_rows_alone(tmp_path):
    first, second = BENCHMARKS[:2]
    files = tmp_path / "results.json", tmp_path / "page.md"
    results.save({second.name: run_with(SLOW), first.name: run_with(FASTER)}, *files)
    runs = results.load(files[0])
    assert runs == {first.name: run_with(FASTER), second.name: run_with(SLOW)}
    assert list(json.loads(files[0].read_text())) == [first.name, second.name]
    results.save(runs | {first.name: run_with(SLOW)}, *files)
    assert results.load(files[0])[second.name] == runs[second.name]


def test_the_page_in_the_docs_is_that_of_the_stored_results():
    assert results.PAGE.read_text() == results.render(results.load())


def test_every_script_is_in_the_table_and_every_page_is_there():
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts - set(HELPERS) == {benchmark.script for benchmark in BENCHMARKS}
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)
    for benchmark in BENCHMARKS:
        assert not benchmark.page or (ROOT / "docs" / "benchmarks" / f"{benchmark.page}.md").is_file()


def test_a_name_chooses_itself_or_what_begins_with_it():
    assert [b.name for b in bench.chosen(["loss_2048"])] == ["loss_2048"]
    assert [b.name for b in bench.chosen(["loss"])] == ["loss_2048", "loss_4096"]
    assert bench.chosen([]) == list(BENCHMARKS)
    with pytest.raises(SystemExit, match=r"no benchmark 'lose'; there are .*loss_2048"):
        bench.chosen(["lose"])


def test_real_data_reaches_the_command_and_its_place_does_not_reach_the_page():
    some = Benchmark("some", "", "distill_text", "{captions}")
    assert bench.command_of(some, "", "/there/captions.csv")[1:] == ["--captions", "/there/captions.csv"]
    assert bench.command_of(some, "", "")[1:] == []


def test_a_script_that_fails_is_a_failed_run(tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/bad.py").write_text("raise MemoryError('not enough')")
    (tmp_path / "benchmarks/good.py").write_text(
        'import json; print("speaks"); print(json.dumps({"figures": [{"what": "a", "value": 2, "at_least": 1}]}))'
    )
    monkeypatch.chdir(tmp_path)
    bad, good = (bench.run(Benchmark(name, "", name), "", "", "") for name in ("bad", "good"))
    assert (bad.verdict, bad.failure) == ("failed", "MemoryError: not enough")
    assert (good.verdict, good.figures) == ("held", [Figure("a", 2, at_least=1)])
    assert good.command == "python benchmarks/good.py"
    assert good.cpu_seconds >= 0
