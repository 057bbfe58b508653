"""The evaluation's comparison and the analysis say the same of the same files, though they share no code."""

import json
from pathlib import Path

import numpy as np
import pytest
from kd_analysis.clustered import average, difference
from kd_analysis.scores import read_scored, suite
from kd_analysis.stats import average_se, bootstrap, mcnemar, sandwich_se
from kd_evalsuite.compare import How, compare
from kd_evalsuite.results import read_results

TASKS = {"gqa": (400, 60), "docvqa": (200, 200)}  # items, images


def write(folder: Path, name: str, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows, scores = [], []
    for task, (n, images) in TASKS.items():
        values = rng.integers(0, 2, n) if task == "gqa" else rng.random(n).round(6)
        made = {str(k): {"task": task, "id": str(k), "cluster": str(k % images)} for k in range(n)}
        rows += [row | {"score": float(value)} for row, value in zip(made.values(), values, strict=True)]
        score = {"benchmark": task, "benchmark_version": "1", "metric": "m", "value": float(values.mean()), "best": 1.0}
        scores.append(score | {"stderr": 0.01, "n": n, "n_unparsed": 0, "top_answer_share": 0.1, "chance": None})
    model = {"kind": "vlm", "name": f"vlm-{name}", "sha256": "0" * 64}
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "scores.json").write_text(
        json.dumps({"schema": "kd-scores/1", "model": model, "blind": False, "scores": scores})
    )
    return folder


def test_differences_and_their_errors_are_equal(tmp_path):
    folders = [write(tmp_path / "eval" / name, name, seed) for seed, name in enumerate(("student-a", "student-b"))]
    ours = compare(read_results(folders), how=How(samples=4000))
    first, second = (suite(model) for model in read_scored(tmp_path / "eval"))
    theirs = difference(second, first)
    for d in ours.by_task:
        assert d.value == pytest.approx(100 * theirs[d.what].score, abs=1e-9)
        assert d.stderr == pytest.approx(100 * sandwich_se(theirs[d.what]), rel=1e-9)
    (whole,) = ours.averages
    assert whole.value == pytest.approx(100 * average(theirs), abs=1e-9)
    assert whole.stderr == pytest.approx(100 * average_se(theirs), rel=1e-9)
    again = bootstrap(theirs, np.random.default_rng(0), n_bootstrap=4000)
    width = 100 * (again.high - again.low)
    assert whole.high - whole.low == pytest.approx(width, rel=0.08)  # two draws of 4000: about 2 % each
    assert whole.low == pytest.approx(100 * again.low, abs=0.08 * width)


def test_mcnemar_is_equal(tmp_path):
    folders = [write(tmp_path / "eval" / name, name, seed) for seed, name in enumerate(("student-a", "student-b"))]
    results = read_results(folders)
    right = [[row.score == 1 for row in r.items["gqa"].values()] for r in results]
    only_first, only_second, p = mcnemar(*right)
    (d,) = compare(results, ["gqa"], how=How(samples=200)).by_task
    assert (d.only_first, d.only_second) == (only_first, only_second)
    assert d.p_mcnemar == pytest.approx(p, rel=1e-9)
