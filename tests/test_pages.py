"""The pages of the paper's tables: current, their commands make exactly their cells, their sums are the plan's."""

import re
import shlex
from fnmatch import fnmatch

import pytest

from pipeline.pages import BEGIN, STUDY, Pages, written
from pipeline.plan import ROOT, read

PAGES = Pages(STUDY)
CELLS = set(PAGES.cells)
MAKE = {"student": ("student", "mixed", "schedule"), "VLM": ("vlm", "score"), "predict": ("predict", "score")}


def stages() -> dict[str, set[str]]:
    """The cells that each stage of the two files runs once each."""
    params, bunny = PAGES.params, read(STUDY / "bunny" / "params.yaml")
    study, vlms = params["study"], set(params["vlm"]["cells"])
    return {
        "studies/paper/dvc.yaml:student": set(study["students"]),
        "studies/paper/dvc.yaml:mixed": set(study["mixed"]),
        "studies/paper/dvc.yaml:schedule": set(study["schedules"]),
        "studies/paper/dvc.yaml:vlm": vlms,
        "studies/paper/dvc.yaml:predict": vlms,
        "studies/paper/bunny/dvc.yaml:score": set(bunny["vlm"]["cells"]),
    }


def made_by(commands: list[str], kind: str) -> set[str]:
    """The cells that the commands' targets name; `kind` is student, VLM or predict."""
    found: set[str] = set()
    for command in commands:
        words = [word for word in shlex.split(command, comments=True) if word.startswith("studies/paper/")]
        for target in words if command.startswith("dvc repro") else []:
            stage, _, glob = target.partition("@")
            wanted = {
                "student": ("student", "mixed", "schedule"),
                "VLM": ("vlm", "score"),
                "predict": ("predict", "score"),
            }
            if stage in stages() and stage.rpartition(":")[2] in wanted[kind]:
                found |= {cell for cell in stages()[stage] if fnmatch(cell, glob or "*")}
    return found


def test_pages_are_as_the_studys_files_say():
    stale = [file.name for file, text in written(STUDY).items() if not file.is_file() or file.read_text() != text]
    assert stale == [], "run `python -m pipeline.pages`"


@pytest.mark.parametrize("key", PAGES.pages)
def test_a_pages_commands_make_its_cells_and_no_others(key):
    page = PAGES.pages[key]
    students, vlms = ({cell.name for cell in PAGES.chosen(page, kind)} for kind in ("students", "vlms"))
    assert vlms
    assert made_by(page["commands"], "student") == students
    assert made_by(page["commands"], "predict") == vlms
    assert made_by(page["commands"], "VLM") == vlms


ONE, *OTHERS = sorted(PAGES.pages, key=lambda key: key != "table5")


@pytest.mark.parametrize("key", [ONE, *(pytest.param(key, marks=pytest.mark.faults) for key in OTHERS)])
def test_dvc_understands_every_target_as_the_page_means_it(key):
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        for words in (shlex.split(c, comments=True) for c in PAGES.pages[key]["commands"] if c.startswith("dvc repro")):
            targets = [word for word in words if word.startswith("studies/paper/")]
            assert targets
            for target in targets:
                found = {stage.addressing for stage in repo.stage.collect(target, glob="--glob" in words)}
                stage, _, glob = target.partition("@")
                cells = {f"{stage}@{cell}" for cell in stages().get(stage, ()) if glob and fnmatch(cell, glob)}
                assert found == (cells or {target})


def test_the_pages_have_every_cell_of_the_study_and_its_sums():
    named = {c.name for page in PAGES.pages.values() for kind in ("students", "vlms") for c in PAGES.chosen(page, kind)}
    assert named == CELLS
    whole = {key: PAGES.sums(PAGES.pages[key]) for key in ("table1", "table2", "table4", "table5", "figure3")}
    hours = sum(time for sums in whole.values() for _, _, time, _ in sums)
    assert hours == pytest.approx(sum(map(PAGES.hours, PAGES.cells.values())))


def test_the_papers_rows_stand_on_their_pages_with_their_cells():
    text = (STUDY / "table2.md").read_text()
    row = "vlm-student-vit-t-16-clip-b16-clip-kd--Qwen2-0-5B--tinyllava-paper"
    assert re.search(rf"\| Qwen2-0\.5B \| ViT-T \| CLIP-ViT-B \| `{row}` \| 36\.56 \| 30\.95 \|", text)
    assert "9,000,000 x 32 x (17.8 + 723.5) GFLOP" in text
    assert "| SigLIP-so400m | 38.79 | 30.41 | 8.38 |" in (STUDY / "figure2.md").read_text()
    assert (STUDY / "table1.md").read_text().count("| `vlm-") == 24


def test_every_page_is_in_the_index_and_its_data_are_declared():
    index = (STUDY / "README.md").read_text().partition(BEGIN)[2]
    for key, page in PAGES.pages.items():
        assert f"({key}.md)" in index
        assert set(page["data"]) <= set(PAGES.data.datasets)


def test_a_changed_cost_makes_the_pages_out_of_date(monkeypatch):
    before = PAGES.text("table4")
    changed = Pages(STUDY)
    changed.costs["gpu"]["used"]["vlm"] = 0.5
    assert changed.text("table4") != before
