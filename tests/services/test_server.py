"""A small study through MLflow's server with PostgreSQL and an S3-compatible store: four writers, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .backends import mlflow_server

pytestmark = pytest.mark.services
ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(4)
PARAMS = """
distill:
  data: {train: pairs, val: pairs, views: 1, crop_area: 0.9, caches: caches}
  recipes:
    short: {losses: {task: 1}, batch_size: 16, steps: 40, warmup: 2, lr: 3.0e-3, weight_decay: 0.1, log_every: 1}
  from_scratch:
"""


def name_of(seed: int) -> str:
    return "teacher-small" + (f"-s{seed}" if seed else "")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Parameters of four cells, and pairs to train them on."""
    cells = "".join(
        f"    {name_of(seed)}: {{kind: teacher, id: small, architecture: demo-vit, recipe: short, seed: {seed}}}\n"
        for seed in SEEDS
    )
    (tmp_path / "params.yaml").write_text(f"{PARAMS}{cells}  distilled: {{}}\n  cached: []\n")
    write_pairs(tmp_path / "pairs")
    return tmp_path


def write_pairs(folder: Path) -> None:
    import io
    import tarfile

    from PIL import Image

    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for i in range(64):
            picture = io.BytesIO()
            Image.new("RGB", (64, 48), (4 * i, 255 - 4 * i, 90)).save(picture, "JPEG")
            for suffix, content in (("jpg", picture.getvalue()), ("txt", f"shade {i}".encode())):
                member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def start(project: Path, uri: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "kd_distill", *arguments],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def all_end_well(started: list[subprocess.Popen[str]]) -> None:
    for process in started:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output[-3000:]


def test_four_trainings_at_once_arrive_whole_and_their_models_come_back_from_the_object_store(project, monkeypatch):
    with mlflow_server(project) as uri:
        # the index of the pairs is made by the first process that looks
        all_end_well([start(project, uri, "run", "--cell", name_of(0), "--dry-run")])
        all_end_well([start(project, uri, "run", "--cell", name_of(seed), "--out", "models") for seed in SEEDS])
        all_end_well([start(project, uri, "register", f"models/{name_of(seed)}", "--refs", "refs") for seed in SEEDS])

        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        from kd_distill import tracking
        from kd_distill.journal import read_journal

        tracking.client.cache_clear()
        tracking._experiment.cache_clear()
        runs = tracking.client().search_runs([tracking._experiment("distill")])
        assert sorted(run.info.run_name for run in runs) == [name_of(seed) for seed in SEEDS]
        for run in runs:
            assert run.info.status == "FINISHED"
            journal = read_journal(project / "models" / run.info.run_name / "journal.jsonl")
            expected = [(e["step"], e["values"]["train/loss"]) for e in journal if "train/loss" in e.get("values", {})]
            history = tracking.client().get_metric_history(run.info.run_id, "train/loss")
            assert sorted((m.step, m.value) for m in history) == sorted(expected)
            assert len(expected) == 40
        for seed in SEEDS:
            reference = json.loads((project / "refs" / f"{name_of(seed)}.json").read_text())
            model = tracking.resolve(f"models:/{name_of(seed)}@candidate")
            assert model.sha256 == reference["sha256"] == tracking.digest(project / "models" / name_of(seed))
            assert not model.path.is_relative_to(project / "models")
        tracking.client.cache_clear()
        tracking._experiment.cache_clear()
