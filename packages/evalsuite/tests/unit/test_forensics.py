import csv
import json
import os
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kd_evalsuite.cli import app
from kd_evalsuite.forensics import examine
from kd_evalsuite.grim import explained, luck
from kd_evalsuite.items import DataError
from kd_evalsuite.known import KNOWN, benchmark_named
from kd_evalsuite.printed import TableParams, read_table, with_options
from kd_evalsuite.tasks import TASKS
from typer.testing import CliRunner

RUN = CliRunner()
ROOT = Path(__file__).resolve().parents[4]
PAPER = Path(os.environ.get("KD_REAL_DATA", ROOT.parent / "shared" / "data")).parent / "paper"
# Table 1 of arXiv 2511.17886v1: the MMBench and MME columns of its two frameworks, as printed.
TINYLLAVA = ["66.26", "62.90", "65.46", "57.60", "61.21", "50.77", "26.02", "26.84", "26.30", "27.14", "26.55", "25.98"]
BUNNY = ["70.85", "67.78", "70.89", "67.06", "68.11", "60.49", "60.83", "60.45", "62.72", "60.36", "61.25", "57.33"]
BUNNY_MME = [
    "1254.28", "1140.73", "1254.50", "1115.75", "1153.77", "906.13", "908.89", "887.05", "973.94", "932.49", "911.71",
    "841.42",
]  # fmt: skip


def table(path, columns):
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def looked(path, declared=None, **options):
    return examine(read_table(path, declared or TableParams()), **options)


# ---------------------------------------------------------------- GRIM


@given(st.integers(1, 9000), st.data(), st.sampled_from([0, 1, 2, 3]), st.sampled_from([1, 100, 1000]))
def test_what_n_items_can_print_is_explained_by_n(n, data, decimals, scale):
    k = data.draw(st.integers(0, n))
    exact = Decimal(scale * k) / Decimal(n)
    for rounding in (ROUND_HALF_UP, ROUND_HALF_DOWN):
        printed = exact.quantize(Decimal(1).scaleb(-decimals), rounding)
        assert explained([printed], [n], decimals=decimals, scale=scale).all()


def test_against_trying_every_k():
    every = [Decimal(u).scaleb(-2) for u in range(0, 10_001, 7)]
    counts = [1, 2, 3, 7, 40, 150, 999, 1200]
    found = explained(every, counts, decimals=2)
    for column, n in enumerate(counts):
        possible = {(Decimal(100 * k) / n).quantize(Decimal("0.01"), way) for k in range(n + 1) for way in ROUNDINGS}
        assert [bool(x) for x in found[:, column]] == [v in possible for v in every]


ROUNDINGS = (ROUND_HALF_UP, ROUND_HALF_DOWN)


@pytest.mark.parametrize("n", [150, 765, 2374])
def test_luck_is_the_share_of_printed_values_that_n_explains(n):
    every = [Decimal(u).scaleb(-2) for u in range(10_001)]
    share = explained(every, [n], decimals=2).mean()
    assert luck(n, 1, decimals=2) == pytest.approx(share, rel=0.02)  # halves count twice
    assert luck(n, 12, decimals=2) == pytest.approx(luck(n, 1, decimals=2) ** 12)
    assert luck(20_000, 5, decimals=2) == 1


def test_counts_out_of_range_are_refused():
    with pytest.raises(ValueError, match="from 1 to"):
        explained([Decimal(1)], [0], decimals=0)
    with pytest.raises(ValueError, match="at most 1 decimals"):
        explained([Decimal("1.25")], [4], decimals=1)


# ---------------------------------------------------------------- the paper's table


def test_bunnys_mmbench_column_is_of_2374_questions_and_moves_with_mme(tmp_path):
    columns = {
        "framework": ["TinyLLaVA"] * 12 + ["Bunny"] * 12,
        "MMBench": TINYLLAVA + BUNNY,
        "MME-P": ["700.00"] * 12 + BUNNY_MME,
    }
    examined, findings = looked(table(tmp_path / "t.csv", columns))
    mmbench = examined[0]
    assert mmbench.split_by == "framework"
    assert [[fit.n for fit in part.own] for part in mmbench.parts] == [[4377], []]
    assert [fit.n for fit in mmbench.parts[1].foreign] == [2374]
    assert mmbench.parts[1].foreign[0].luck < 1e-7
    found = next(f for f in findings if f.kind == "another benchmark")
    assert found.column == "MMBench"
    assert "2374 (mme_accuracy, all questions)" in found.says
    assert "correlation with the column MME-P 0.993" in found.says


def test_in_a_range_only_2374_and_its_relatives_explain_bunnys_column(tmp_path):
    columns = {"name": list("abcdefghijkl"), "score": BUNNY}
    declared = with_options(TableParams(), {"score": [4377]}, None)
    examined, findings = looked(table(tmp_path / "t.csv", columns), declared, scan=(500, 4700))
    assert examined[0].whole.scanned == (2374,)
    assert findings[0].kind == "another benchmark"


@pytest.mark.skipif(not PAPER.exists(), reason=f"no copy of the paper's tables at {PAPER}")
@pytest.mark.parametrize(("name", "rows"), [("table1_wide.csv", 24), ("table2_wide.csv", 22)])
def test_the_papers_denominators_and_averages(name, rows):
    declared = TableParams(decimals=2)
    printed = read_table(PAPER / name, declared)
    examined, findings = examine(printed)
    own = {one.column.name: [fit.n for fit in one.whole.own] for one in examined}
    expected = {
        "scienceqa": 4241, "mmmu": 900, "mathvista": 1000, "ai2d": 3088, "chartqa": 2500, "ocrbench": 1000, "mmvp": 150,
        "realworldqa": 765, "cvbench_2d": 1438, "cvbench_3d": 1200,
    }  # fmt: skip
    assert {key: own[key][0] for key in expected} == expected
    says = {(f.kind, f.column) for f in findings}
    assert not {f.column for f in findings} & {"average"}
    assert ("guess", "mathvista") in says  # below the frequent guess
    assert ("another benchmark", "mmbench_en") in says if rows == 24 else own["mmbench_en"] == [4377]
    assert ("repeated", "cvbench_3d") in says if rows == 22 else True


# ---------------------------------------------------------------- findings


def honest(n, right):
    return [f"{100 * k / n:.2f}" for k in right]


def test_an_honest_table_has_no_findings(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"model": [f"m{k}" for k in range(10)]}
    columns |= {"MMMU": honest(900, rng.integers(300, 500, 10)), "AI2D": honest(3088, rng.integers(900, 2000, 10))}
    columns["Avg"] = [f"{(float(a) + float(b)) / 2:.2f}" for a, b in zip(columns["MMMU"], columns["AI2D"], strict=True)]
    examined, findings = looked(table(tmp_path / "t.csv", columns))
    assert findings == []
    assert [[fit.n for fit in one.whole.own] for one in examined] == [[900], [3088]]


def test_a_changed_digit_and_a_wrong_average_are_named_with_their_rows(tmp_path):
    rng = np.random.default_rng(1)
    columns = {"model": [f"m{k}" for k in range(10)], "MMMU": honest(900, rng.integers(300, 500, 10))}
    columns["MMMU"][4] = f"{float(columns['MMMU'][4]) + 0.04:.2f}"
    columns["AI2D"] = honest(3088, rng.integers(900, 2000, 10))
    columns["average"] = [
        f"{(float(a) + float(b)) / 2:.2f}" for a, b in zip(columns["MMMU"], columns["AI2D"], strict=True)
    ]
    columns["average"][7] = "12.34"
    _, findings = looked(table(tmp_path / "t.csv", columns))
    assert {f.kind for f in findings} == {"no count", "average"}
    says = {f.kind: f.says for f in findings}
    assert says["no count"].startswith("1 of 10 values are no fraction of 900")
    assert "(m4)" in says["no count"]
    assert "m7: 12.34, the mean is" in says["average"]


@pytest.mark.parametrize(
    ("columns", "kind", "said"),
    [
        ({"MMMU": ["0.31", "0.35", "0.42"]}, "scale", "fractions of 1"),
        ({"MMMU": ["31.00", "350.00"]}, "scale", "expected 0 to 100"),
        ({"MMMU": ["-3.00", "35.00"]}, "scale", "expected 0 to 100"),
        ({"MME": ["65.1", "70.2"]}, "scale", "percent, where its score goes to 2000"),
        ({"MMVP": ["25.00", "30.00", "24.00"]}, "guess", "1 of 3 values is exactly 25 (at random)"),
        ({"MathVista": ["21.30", "22.80"]}, "guess", "lie below 26.3 (most frequent)"),
        ({"GQA": ["51.02", "52.50", "53.11"], "MMB": ["51.02", "52.50", "53.11"]}, "twins", "same values as MMB"),
        ({"CV-Bench 3D": ["50.25"] * 12 + [f"{49 + k / 4:.2f}" for k in range(10)]}, "repeated", "exactly 50.25"),
    ],
)
def test_each_kind_of_finding(tmp_path, columns, kind, said):
    n = len(next(iter(columns.values())))
    _, findings = looked(table(tmp_path / "t.csv", {"model": [f"m{k}" for k in range(n)], **columns}))
    assert any(f.kind == kind and said in f.says for f in findings), findings


def test_large_benchmarks_and_graded_scores_are_said_to_be_undecidable(tmp_path):
    path = table(tmp_path / "t.csv", {"m": ["a", "b"], "GQA": ["51.02", "52.50"], "DocVQA": ["10.47", "8.01"]})
    done = RUN.invoke(app, ["forensics", str(path)])
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    assert "cannot tell: 12578 items" in text
    assert "items can be partly right" in text
    assert "nothing found" in text


# ---------------------------------------------------------------- the command


def test_any_table_with_a_small_declaration(tmp_path):
    path = table(
        tmp_path / "t.csv", {"m": ["a", "b", "c", "d"], "mine": ["250", "500", "1000", "125"], "year": list("1234")}
    )
    declare = tmp_path / "d.yaml"
    declare.write_text("forensics:\n  columns:\n    mine: {scale: 1000, counts: [8, 7], guesses: {125: one letter}}\n")
    done = RUN.invoke(app, ["forensics", str(path), "--declare", str(declare), "--json"])
    assert done.exit_code == 0, done.output
    whole = json.loads(done.stdout)
    assert [fit["n"] for fit in whole["columns"][0]["whole"]["own"]] == [8]
    assert whole["ignored"] == ["year"]
    assert [f["says"] for f in whole["findings"]] == ["1 of 4 values is exactly 125 (one letter)"]


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("a,MMMU\nx,oops\n", [], "row 2, column MMMU: expected a number, found 'oops'"),
        ("a,MMMU\nx\n", [], "row 2 has 1 cells"),
        ("a,a\nx,y\n", [], "another name"),
        ("a,b\nx,1\n", [], "no column is named after a benchmark"),
        ("a,MMMU\nx,30.0\n", ["--by", "b"], "Expected a text column to split by, got 'b'; there are a"),
        ("a,MMMU\nx,30.0\n", ["--counts", "b=3"], "declared columns b are not there"),
        ("a,MMMU\nx,30.0\n", ["--counts", "MMMU"], "expected COLUMN=N,N or LOW-HIGH"),
        ("a,MMMU\nx,30.12\n", ["--decimals", "1"], "1 decimals are declared, 2 are printed"),
        ("", [], "expected a head and rows"),
    ],
)
def test_tables_that_are_none_are_refused_with_exit_code_2(tmp_path, text, arguments, said):
    (tmp_path / "t.csv").write_text(text)
    done = RUN.invoke(app, ["forensics", str(tmp_path / "t.csv"), *arguments])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_a_wrong_key_of_a_declaration_is_named_with_its_line(tmp_path):
    path = table(tmp_path / "t.csv", {"m": ["a"], "MMMU": ["30.0"]})
    (tmp_path / "d.yaml").write_text("forensics:\n  columns:\n    MMMU:\n      scal: 100\n")
    done = RUN.invoke(app, ["forensics", str(path), "--declare", str(tmp_path / "d.yaml")])
    assert done.exit_code == 2
    assert "d.yaml:4: forensics.columns.MMMU.scal: unknown key; did you mean 'scale'?" in done.output.replace("\n", "")


def test_text_of_a_table_is_shown_and_does_nothing(tmp_path):
    path = table(tmp_path / "t.csv", {"m\x1b[31m": ["[red]x", "b"], "MMMU": ["33.33", "44.47"]})
    done = RUN.invoke(app, ["forensics", str(path), "--by", "m\x1b[31m"])
    assert done.exit_code == 0
    assert "\x1b" not in done.output
    assert "[red]x" in done.output


def test_benchmarks_are_recognised_in_their_usual_spellings():
    for name in (
        "MMMU",
        "MMU",
        "A2D",
        "SEED-I",
        "CV-Bench-2D",
        "MME-P",
        "MMBench",
        "OCRbench",
        "TextVQA",
        "ImageNet-1k",
    ):
        assert benchmark_named(name) in KNOWN
    assert benchmark_named("mmm") is None
    assert TASKS.keys() <= KNOWN.keys()


def test_missing_values_are_left_out(tmp_path):
    path = table(tmp_path / "t.csv", {"m": ["a", "b", "c"], "MMMU": ["33.33", "--", "44.44%"]})
    column = read_table(path, TableParams()).columns[0]
    assert (column.rows, [str(v) for v in column.values]) == ((0, 2), ["33.33", "44.44"])
    with pytest.raises(DataError, match="has no values"):
        read_table(table(tmp_path / "u.csv", {"m": ["a"], "MMMU": ["-"]}), TableParams())
