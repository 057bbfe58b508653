"""`analysis publish` against a real tracking database."""

import json

import pytest
from kd_analysis import tracking
from kd_analysis.cli import app
from kd_analysis.mlflow_results import read_mlflow
from kd_analysis.scores import InputError
from typer.testing import CliRunner

pytestmark = pytest.mark.recipe


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    for cached in (tracking.client, tracking._experiment):
        cached.cache_clear()
    yield
    for cached in (tracking.client, tracking._experiment):
        cached.cache_clear()


def test_similarities_and_the_report_are_published_once(inputs, params_file, database):
    (inputs / "report").mkdir()
    (inputs / "report" / "report.html").write_text("<p>page</p>")
    call = ["publish", "--params", params_file(), "--cka", inputs / "cka", "--report", inputs / "report"]
    for _ in range(2):
        done = CliRunner().invoke(app, [str(a) for a in call])
        assert done.exit_code == 0, done.output
    client = tracking.client()
    experiment = client.get_experiment_by_name("analysis").experiment_id
    runs = client.search_runs([experiment])
    assert len(runs) == 3
    own = [r for r in runs if r.data.tags["stage"] == "cka"]
    assert {len(r.data.metrics) for r in own} == {3 * 32}, "value, .stderr and .n"
    assert "cka/pooled/debiased/mme_perception" in own[0].data.metrics
    page = next(r for r in runs if r.data.tags["stage"] == "report")
    assert [f.path for f in client.list_artifacts(page.info.run_id)] == ["report.html"]


def test_results_are_read_back_from_a_real_database(inputs, params_file, database):
    """Scores and similarities of two encoders as their packages publish them, in pages of one run."""
    client = tracking.client()
    for name, tags in {
        "teacher-large": {"kd.kind": "teacher", "kd.arch": "large", "kd.params_m": "5.0"},
        "student-vit--large--clip-kd": {
            "kd.kind": "student", "kd.arch": "vit", "kd.teacher": "teacher-large", "kd.recipe": "clip-kd",
            "kd.data": "pairs",
        },
    }.items():  # fmt: skip
        sha256 = json.loads((inputs / "zeroshot" / name / "scores.json").read_text())["model"]["sha256"]
        client.create_registered_model(name)
        client.create_model_version(name, source=str(inputs), tags=tags | {"sha256": sha256})
        metrics = {"eval/zeroshot/top1": 0.5, "eval/zeroshot/top1.stderr": 0.02, "eval/zeroshot/top1.n": 960.0}
        known = {"kd.model": name, "sha256": sha256, "kd.blind": "false"}
        tracking.publish("eval", name, name, params={}, metrics=metrics, tags=known)
    call = ["publish", "--params", params_file(), "--cka", inputs / "cka", "--report", inputs / "none"]
    assert CliRunner().invoke(app, [str(a) for a in call]).exit_code == 0
    with pytest.raises(InputError, match="student-vit--small--clip-kd"):
        read_mlflow(client)
    client.create_registered_model("student-vit--small--clip-kd")
    tags = {"kd.kind": "student", "kd.arch": "vit", "kd.teacher": "teacher-small", "kd.recipe": "clip-kd"}
    client.create_model_version("student-vit--small--clip-kd", source=str(inputs), tags=tags)
    found = read_mlflow(client, page=1)
    scores = [r for r in found if r.metric == "score"]
    assert sorted((r.teacher, r.student, r.task, r.value, r.se, r.n) for r in scores) == [
        ("large", "", "imagenet", 50.0, 2.0, 960),
        ("large", "vit", "imagenet", 50.0, 2.0, 960),
    ]
    alike = [r for r in found if r.metric == "cka"]
    assert len(alike) == 2 * 16
    assert {(r.se, r.n) for r in alike} == {(0.0255, 128)}
    assert [r.value for r in found if r.metric == "params_m"] == [5.0]
