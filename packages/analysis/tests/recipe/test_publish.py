"""`analysis publish` against a real tracking database."""

import pytest
from kd_analysis import tracking
from kd_analysis.cli import app
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
