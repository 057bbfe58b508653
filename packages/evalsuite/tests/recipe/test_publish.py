"""Scores in a fresh MLflow database."""

import os
import subprocess
import sys

import pytest
from kd_evalsuite.data import load_all
from kd_evalsuite.score import score_folder

from packages.evalsuite.tests.unit.test_score import gold, write

pytestmark = pytest.mark.recipe

PROGRAM = """
import sys
from pathlib import Path
from kd_evalsuite.publish import publish_folder
from kd_evalsuite.tracking import client

first, second = (publish_folder(Path(sys.argv[1]), [Path(sys.argv[2])]) for _ in range(2))
assert first == second
run = client().get_run(first)
assert run.info.run_name == "scripted"
assert abs(run.data.metrics["eval/average/mean_percent"] - 100) < 1e-6
assert run.data.metrics["eval/gqa/accuracy.n"] == 12
assert run.data.metrics["eval/gqa/accuracy.stderr"] == 0
assert run.data.params["protocol"] == "paper"
assert run.data.tags["kd.blind"] == "false"
assert len(run.inputs.dataset_inputs) == 16
assert run.data.tags["kd.protocol"] == "paper"
assert run.data.tags["kd.mode"] == "generate"
assert {a.path for a in client().list_artifacts(first)} == {
    "scores.json", "items.jsonl", "predictions", "scores_table.json"
}
assert "|gqa/accuracy|100.00 ± 0.00|12|" in run.data.tags["mlflow.note.content"]
assert len(client().list_artifacts(first, "predictions")) == 16
assert "torch" not in sys.modules
"""


def test_scores_become_one_run_with_metrics_datasets_and_files(benchmark_root, tmp_path):
    write(benchmark_root, tmp_path / "p/scripted", gold)
    score_folder(tmp_path / "p/scripted", tmp_path / "s/scripted", load_all(benchmark_root, _keys(), pictures=False))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "s/scripted"), str(tmp_path / "p")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def _keys():
    from kd_evalsuite.tasks import TASKS

    return TASKS
