"""Slices of the studies as `dvc repro` runs them: the paper's in `make test`, the sound study's in `make faults`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.rehearse import laid_out
from tests.rehearsal.tables import rows

HERE = Path(__file__).parent
pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("rehearsal")]


def reproduced(study: str, work: Path, overlay: str) -> Path:
    """A slice of a study, with all of its stages run by one dvc; the folder of its results."""
    with laid_out(study, work, HERE / overlay) as env:
        command = [sys.executable, "-m", "dvc", "repro", f"studies/{study}/dvc.yaml"]
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return work / "out" / study


def test_a_slice_of_the_papers_grid_goes_from_the_hub_to_the_tables(tmp_path):
    out = reproduced("paper", tmp_path / "paper", "smallest.yaml")
    first = [(row["block"], row["encoder"]) for row in rows(out / "tables" / "table1.csv")]
    assert first == [("bunny-paper, SmolLM-360M", "siglip-so400m-384")]
    assert [row["student"] for row in rows(out / "tables" / "table2.csv")] == ["vit-t-16"]
    assert [float(p["epoch"]) for p in rows(out / "figures" / "figure3a.csv")] == [2.0, 4.0]
    assert (out / "report" / "report.html").stat().st_size > 10_000


@pytest.mark.faults
def test_a_slice_of_the_sound_study_compares_students_with_and_without_a_teacher(tmp_path):
    out = reproduced("sound", tmp_path / "sound", "sound.yaml")
    scored = [file.parent.name for file in (out / "eval").glob("*/scores.json")]
    assert sorted(scored) == [
        "vlm-student-swin-t-dfn-b16-sound--SmolLM-360M--sound-49",
        "vlm-student-vit-t-16-siglip-so400m-384-sound-patch--Qwen2-0-5B--sound-pooled",
    ]
    assert len(list((out / "zeroshot").glob("*/scores.json"))) == 2 + 5
    answers = json.loads((out / "report" / "answer.json").read_text())
    compared = {claim["question"] for claim in answers["claims"]}
    assert any("without a teacher" in question for question in compared)
