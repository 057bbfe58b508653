"""DVC notices a data set that changed, by its manifest; it hashes none of it and copies nothing into its cache."""

import json
import os
import sys
from pathlib import Path

import pytest
from dvc.exceptions import ReproductionError
from dvc.repo import Repo

from pipeline.data.spec import read_spec
from pipeline.plan import read

from .sets import shard

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "studies" / "paper" / "data.yaml"
DATA = read(PAPER.parent / "data" / "dvc.yaml")["stages"]["check"]
SPEC = """
data:
  root: datasets
  manifests: studies/paper/data
  datasets:
    cc12m: {folder: cc12m, what: pairs, licence: ours, sources: [{hand: Draw them.}], holds: {kind: shards}}
"""
TRAINS = {"cmd": "cp studies/paper/data/cc12m.json model", "deps": ["studies/paper/data/cc12m.json"], "outs": ["model"]}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Repo:
    """The paper's stage of one data set, and a stage that trains on it."""
    home = tmp_path / "studies" / "paper"
    (home / "data").mkdir(parents=True)
    stages = {"check": {"foreach": ["cc12m"], "do": DATA["do"]}}
    (home / "data" / "dvc.yaml").write_text(json.dumps({"vars": ["../params.yaml"], "stages": stages}))
    (home / "params.yaml").write_text("study: {check: --workers 1}\n")
    (home / "data.yaml").write_text(SPEC)
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"train": TRAINS}}))
    for n in range(3):
        shard(tmp_path / "datasets" / "cc12m" / f"{n}.tar", 4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        yield repo


def run(repo: Repo) -> set[str]:
    """The stages that ran."""
    with repo.lock:
        repo._reset()
    return {stage.addressing for stage in repo.reproduce("train")}


def test_training_runs_again_when_its_data_are_others_and_only_then(project, tmp_path, capfd):
    checked = "studies/paper/data/dvc.yaml:check@cc12m"
    assert run(project) == {checked, "train"}
    assert json.loads((tmp_path / "model").read_text())["counts"] == {"pairs": 12, "shards": 3}
    assert "train" not in run(project)
    shard(tmp_path / "datasets" / "cc12m" / "1.tar", 3)
    capfd.readouterr()
    with pytest.raises(ReproductionError):
        run(project)
    assert "1 changed: 1.tar" in capfd.readouterr().err
    (tmp_path / "studies" / "paper" / "params.yaml").write_text("study: {check: --workers 1 --accept}\n")
    assert "train" in run(project)
    assert json.loads((tmp_path / "model").read_text())["counts"] == {"pairs": 11, "shards": 3}
    cached = [p for p in (tmp_path / ".dvc" / "cache").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in cached) < (tmp_path / "datasets" / "cc12m" / "0.tar").stat().st_size
    assert (tmp_path / "studies" / "paper" / "data" / "cc12m.json").is_file()


def test_every_data_set_has_its_stage_and_every_manifest_that_a_stage_needs_is_of_one():
    names = list(read_spec(PAPER).datasets)
    assert DATA["foreach"] == names
    text = "".join((ROOT / f"studies/{file}/dvc.yaml").read_text() for file in ("paper", "paper/bunny", "sound"))
    text = text.replace("captions-${item}", "captions-llava").replace("${item}-pretrain", "bunny-pretrain")
    for name in names:
        text = text.replace(f"studies/paper/data/{name}.json", "")
    assert "studies/paper/data/" not in text.replace("studies/paper/data.yaml", "")
