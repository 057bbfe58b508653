"""One cell of a grid fails: the others are made, scored and reported; the report says which is missing and why.

Here a grid of the study's form whose stages do nothing; `tests/rehearsal/test_slice.py` does it with the real one.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.tests.project import ROOT, dvc

from .toy import start

WORK = """
import json, sys
from pathlib import Path

what, *cell = sys.argv[1:]
broken = Path("broken").read_text().split()
if " ".join([what, *cell]) in broken or f"{what}@{''.join(cell)}" in broken:
    sys.exit(f"{what} cannot go on: its data are gone")
def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
if what == "train":
    write(Path("models", cell[0], "weights"), cell[0])
elif what == "register":
    for folder in Path("models").iterdir():
        write(Path("refs", f"{folder.name}.json"), folder.name)
elif what == "predict":
    write(Path("out", cell[0]), Path("refs", f"{cell[0]}.json").read_text())
elif what == "score":
    write(Path("scores"), " ".join(sorted(f.read_text() for f in Path("out").iterdir())))
else:
    note = Path("runs/missing.json")
    lost = json.loads(note.read_text())["missing"] if note.exists() else []
    write(Path("report"), "\\n".join([Path("scores").read_text(), *(f"{m['stage']}: {m['why']}" for m in lost)]))
"""
GRAPH = """
stages:
  train:
    foreach: [one, two, three]
    do: {cmd: "python work.py train ${item}", outs: ["models/${item}"]}
  register: {cmd: python work.py register, deps: [models], outs: [refs]}
  predict:
    foreach: [one, two, three]
    do: {cmd: "python work.py predict ${item}", deps: ["refs/${item}.json"], outs: ["out/${item}"]}
  score: {cmd: python work.py score, deps: [out], outs: [scores]}
  report: {cmd: python work.py report, deps: [scores], outs: [report]}
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    folder = tmp_path / "grid"
    folder.mkdir()
    for part in ("pipeline", "contract"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "work.py").write_text(WORK)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "broken").write_text("")
    dvc(folder, "init", "--no-scm", "--quiet")
    return folder


def run(grid: Path, broken: str = "") -> subprocess.Popen:
    (grid / "broken").write_text(broken)
    with start(grid) as runner:
        runner.said = "".join(runner.communicate(timeout=180))
    return runner


def ran(runner: subprocess.Popen) -> set[str]:
    return {line.split()[-1] for line in runner.said.splitlines() if " done " in line}


def test_the_others_are_reported_and_put_right_it_is_made_alone(grid):
    first = run(grid, "train@two")
    assert first.returncode == 1
    assert "1 stages failed and 1 could not run" in first.said
    assert (grid / "scores").read_text() == "one three"
    why = "train cannot go on: its data are gone"
    assert (grid / "report").read_text().splitlines()[1:] == [f"train@two: {why}", "predict@two: two.json is not there"]

    second = run(grid)
    assert second.returncode == 0, second.said
    assert ran(second) == {"train@two", "register", "predict@two", "score", "report"}
    assert (grid / "report").read_text() == "one three two"
    assert not (grid / "runs" / "missing.json").exists()
    assert "up to date" in dvc(grid, "status")


def test_where_what_collects_fails_nothing_behind_it_runs(grid):
    end = run(grid, "score")
    assert end.returncode == 1
    missing = json.loads((grid / "runs" / "missing.json").read_text())["missing"]
    assert [(m["stage"], m["outcome"], m["why"]) for m in missing] == [
        ("score", "failed", "score cannot go on: its data are gone"), ("report", "held", "needs score"),
    ]  # fmt: skip
    assert not (grid / "report").exists()
