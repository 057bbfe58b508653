"""The plan of the paper's study: cells are the paper's rows, costs follow their formula, contradictions are refused."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline import plan
from pipeline.downloads import assets, in_cache
from pipeline.pages import cell_of, paper_rows
from pipeline.rehearsal.hub import put

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "studies" / "paper"
PARAMS, BUNNY = (plan.read(STUDY / file) for file in ("params.yaml", "bunny/params.yaml"))
COSTS = plan.read(STUDY / "costs.yaml")
OURS = {label: name for name, label in PARAMS["analysis"]["names"].items()}


@pytest.mark.parametrize(("table", "rows"), [("Table 1", 24), ("Table 2", 22), ("Table 4", 20), ("Table 5", 6)])
def test_every_row_of_the_papers_tables_has_its_cell(table, rows):
    wanted = {cell_of(row, OURS) for row in paper_rows(table)}
    assert len(wanted) == rows
    assert wanted <= set(PARAMS["vlm"]["cells"]) | set(BUNNY["vlm"]["cells"])


def test_every_cell_is_of_a_row_or_of_figure_three():
    rows = {cell_of(row, OURS) for table in (1, 2, 4, 5) for row in paper_rows(f"Table {table}")}
    others = (set(PARAMS["vlm"]["cells"]) | set(BUNNY["vlm"]["cells"])) - rows
    assert Counter("clip-kd-96" in name for name in others) == {True: 24}


def test_every_student_that_a_vlm_reads_is_trained():
    students = set(PARAMS["distill"]["distilled"])
    trained = [*PARAMS["study"]["students"], *PARAMS["study"]["mixed"], *PARAMS["study"]["schedules"]]
    assert sorted(trained) == sorted(students)
    read = {Path(cell["encoder"]).stem for cell in PARAMS["vlm"]["cells"].values()}
    exported = {f"{name}-e{epoch}" for name in PARAMS["study"]["schedules"] for epoch in range(8, 96, 8)}
    released = {"student-vit-t-16--clip-b16--released"}
    assert {name for name in read if name.startswith("student-")} == students | exported | released


def test_parameter_files_are_accepted_by_the_packages_that_read_them():
    from kd_analysis.config import AnalysisParams
    from kd_distill.config import DistillParams
    from kd_distill.params import load_section
    from kd_evalsuite.config import EvalParams
    from kd_vlm.config import Section

    file = STUDY / "params.yaml"
    assert len(load_section(file, "distill", DistillParams, []).distilled) == 32
    assert len(load_section(file, "vlm", Section, []).cells) == 77
    assert len(load_section(STUDY / "bunny" / "params.yaml", "vlm", Section, []).cells) == 12
    assert load_section(file, "evalsuite", EvalParams, []).protocol == "paper"
    assert load_section(file, "analysis", AnalysisParams, []).families["DFN"] == ("dfn-b16", "dfn-l14")
    file = ROOT / "studies" / "sound" / "params.yaml"
    assert len(load_section(file, "distill", DistillParams, []).cells) == 60
    assert len(load_section(file, "vlm", Section, []).cells) == 120
    assert load_section(file, "analysis", AnalysisParams, []).refs == Path("refs/sound")


def test_the_sound_study_has_the_papers_students_under_three_seeds_each_beside_one_without_a_teacher():
    sound = plan.read(ROOT / "studies" / "sound" / "params.yaml")
    assert plan.problems(sound) == []
    of_seed_0 = {n.replace("--clip-kd", "--sound") for n in PARAMS["study"]["students"] if n.endswith("--clip-kd")}
    every = {f"{name}{seed}" for name in of_seed_0 for seed in ("", "-s1", "-s2")}
    assert {name for name in sound["distill"]["distilled"] if "sound-patch" not in name} == every
    read = Counter(Path(cell["encoder"]).stem for cell in sound["vlm"]["cells"].values())
    assert read == dict.fromkeys((*sound["distill"]["from_scratch"], *sound["distill"]["distilled"]), 2)
    tokens = {name.rpartition("--")[2] for name in sound["vlm"]["cells"] if "vit-t-16" in name}
    assert tokens == {"sound-pooled"}  # as many tokens as the others


@pytest.mark.parametrize(("study", "students", "vlms"), [("paper", 32, 89), ("sound", 60, 120)])
def test_a_study_is_planned_whole(tmp_path, study, students, vlms):
    kinds = Counter(cell.kind for cell in plan.plan(ROOT / "studies" / study, tmp_path))
    assert kinds == {"student": students, "VLM": vlms}


def test_the_costs_of_two_cells_by_hand(tmp_path):
    (tmp_path / "distilled" / "student-vit-t-16--clip-b16--kl").mkdir(parents=True)
    cells = {cell.name: cell for cell in plan.plan(STUDY, tmp_path)}
    student = cells["student-vit-t-16--clip-b16--clip-kd"]
    assert student.operations == pytest.approx(9e6 * 32 * (17.8 + 41.1) * 1e9)
    assert plan.hours(student, 312) == pytest.approx(100.7, abs=0.1)
    vlm = cells["vlm-student-vit-t-16-clip-b16-clip-kd--Qwen2-0-5B--tinyllava-paper"]
    by_hand = 558_128 * (2.5e9 + 4 * 494.03e6 * 216) + 665_298 * (2.5e9 + 6 * 494.03e6 * 416)
    assert vlm.operations == pytest.approx(by_hand)
    assert not student.done
    assert cells["student-vit-t-16--clip-b16--kl"].done


def test_a_schedule_is_done_when_its_last_encoder_is_there_not_its_first(tmp_path):
    name = "student-vit-t-16--dfn-l14--clip-kd-96"

    def done() -> bool:
        return next(cell.done for cell in plan.plan(STUDY, tmp_path) if cell.name == name)

    (tmp_path / "schedules" / name / f"{name}-e8").mkdir(parents=True)
    assert not done()
    (tmp_path / "schedules" / name / name).mkdir()
    assert done()


def test_the_swaps_that_the_paper_has_are_refused():
    names = PARAMS["analysis"]["names"]
    swapped = names | {"clip-l14": names["clip-b16"], "clip-b16": names["clip-l14"]}
    assert len(plan.problems({"analysis": {"names": swapped}})) == 2
    name, cell = next((n, c) for n, c in PARAMS["vlm"]["cells"].items() if "teacher-clip-l14" in n)
    other = cell | {"encoder": cell["encoder"].replace("clip-l14", "clip-b16")}
    assert "its name says the encoder teacher-clip-l14" in plan.problems({"vlm": {"cells": {name: other}}})[0]
    assert "recipe" in plan.problems({"vlm": {"cells": {name: cell | {"recipe": "bunny-paper"}}}})[0]
    assert plan.problems(PARAMS) == plan.problems(BUNNY) == []


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub's, in the place of this machine's; its home."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_everything_that_comes_from_elsewhere_and_is_not_there_is_listed_at_once(hub, tmp_path):
    found = {asset.name: asset for asset in assets([PARAMS, BUNNY], tmp_path)}
    assert len(found) == 5 + 2 + 1
    assert found["Qwen/Qwen2-0.5B"].needed_for == "language model of 66 VLMs"
    assert {name: asset.state for name, asset in found.items() if asset.state != "to fetch"} == {
        "student-vit-t-16--clip-b16--released": "by hand"
    }


def test_a_model_that_was_fetched_or_taken_is_there(hub, tmp_path):
    (tmp_path / "paper" / "teachers" / "teacher-clip-l14").mkdir(parents=True)
    (tmp_path / "adopted" / "student-vit-t-16--clip-b16--released").mkdir(parents=True)
    there = [asset.name for asset in assets([PARAMS, BUNNY], tmp_path) if asset.state == "there"]
    assert there == ["timm/vit_large_patch14_clip_224.openai", "student-vit-t-16--clip-b16--released"]


def test_the_hubs_own_cache_is_looked_into(hub):
    assert not in_cache("owner/model")
    put(hub, "owner/model", lambda folder: (folder / "config.json").write_text("{}"))
    assert in_cache("owner/model")
    assert in_cache("owner/model@main")
    assert not in_cache("owner/model@other")
