"""The whole study at its smallest sizes, by parameters alone, in a copy of the repository."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.tests.project import copy_repository, dvc, python

pytestmark = [pytest.mark.pipeline, pytest.mark.xdist_group("pipeline")]


def stages_run(output: str) -> set[str]:
    lines = [line for line in output.splitlines() if line.startswith("Running stage '")]
    return {line.split("'")[1] for line in lines}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files with the smallest parameters, after what `make demo` runs."""
    folder = copy_repository(tmp_path_factory.mktemp("study"))
    said = python(folder, "pipeline.demo", "--jobs", "2")
    assert "out/report/report.html" in said
    return folder


def test_the_report_is_written_and_names_every_model(project):
    page = (project / "out" / "report" / "report.html").read_text()
    for ref in [*(project / "refs" / "scratch").glob("*.json"), *(project / "refs" / "vlms").glob("*.json")]:
        assert json.loads(ref.read_text())["name"] in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_reports_metrics_and_plots_are_dvcs(project):
    assert "answer.zero-shot top-1.difference" in dvc(project, "metrics", "show", "out/report/metrics.json")
    dvc(project, "plots", "show", "-o", "out/plots")
    page = (project / "out" / "plots" / "index.html").read_text()
    assert "Gap_to_the_teacher" in page
    assert len(list((project / "out" / "plots" / "static").glob("*.png"))) == 5


def test_every_vlm_is_scored_on_all_sixteen_tasks(project):
    files = sorted((project / "out" / "eval").glob("*/scores.json"))
    assert len(files) == len(list((project / "refs" / "vlms").glob("*.json")))
    for file in files:
        scores = json.loads(file.read_text())["scores"]
        assert len({s["benchmark"] for s in scores} - {"average"}) == 16


def test_repro_again_trains_and_predicts_nothing(project):
    assert stages_run(dvc(project, "repro")) <= {"registry"}


def test_a_lost_tracking_database_is_rebuilt_without_training(project):
    (project / "mlflow.db").unlink()
    shutil.rmtree(project / "mlruns")
    ran = stages_run(dvc(project, "repro"))
    assert "registry" in ran
    assert all(stage.startswith(("registry", "register_", "publish")) for stage in ran), ran
    assert {"register_scratch", "register_distilled", "register_lms", "register_vlms", "publish"} <= ran


def test_a_changed_loss_weight_reaches_only_what_depends_on_it(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("icl: 1", "icl: 2"))
    assert text != (project / "params.yaml").read_text()
    ran = stages_run(dvc(project, "repro", "--dry"))
    (project / "params.yaml").write_text(text)
    assert any(stage.startswith("distilled@") for stage in ran)
    assert not any(stage.startswith(("scratch@", "cache@", "world", "lm@")) for stage in ran)
