"""The benchmark of the pipeline, on a DVC project of two stages."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.demo import prepare_dvc
from pipeline.parallel import environment

HERE = str(Path(__file__).resolve().parents[1] / "benchmarks")
STAGES = """
stages:
  busy:
    cmd: python busy.py
    outs: [one]
  after:
    cmd: python -c "import json; open('two', 'w').write(open('one').read())"
    deps: [one]
    outs: [two]
"""
BUSY = """
import time
import decimal
until = time.process_time() + 0.5
while time.process_time() < until:
    pass
open("one", "w").write("1")
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "busy.py").write_text(BUSY)
    prepare_dvc(tmp_path)
    return tmp_path


def test_a_stage_has_its_cpu_time_its_imports_and_dvcs_own(project, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path, HERE])  # as a script has it
    benchmark = import_module("benchmarks.pipeline")
    watch = benchmark.Watch()
    kinds, wall = benchmark.measure(project, 1, watch)
    busy, after = kinds["busy"], kinds["after"]
    assert (project / "two").read_text() == "1"
    assert list(kinds) == ["busy", "after"]
    assert busy.commands > 0.45  # the kernel counts in hundredths of a second
    assert busy.work > 0.4
    assert 0 <= after.work < busy.work
    assert 0 < busy.imports < busy.commands
    assert min(busy.dvc, after.dvc) > 0.2  # DVC imports much, and these are not the stage's
    assert wall >= busy.wall
    assert watch.at_once > 0.01
    again = benchmark.nothing_to_do(project, environment(1))
    assert again.dvc > 0.2
    found = benchmark.figures(kinds, wall, watch.at_once, again, 1)
    assert [f.what for f in found][-2:] == ["CPU time of `busy`", "CPU time of `after`"]
    work = busy.commands + after.commands - busy.imports - after.imports
    assert found[2].value == pytest.approx(100 * work / (busy.cpu + after.cpu))
    assert all(f.held for f in found[:2])
    assert "busy" in capsys.readouterr().out


def test_stages_of_one_kind_are_taken_together(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, HERE])
    spent = import_module("benchmarks.pipeline").Spent
    total = spent(1, 2.0, 0.5, 3.0, 1.0, 0.25)
    total.add(spent(1, 4.0, 0.5, 2.0, 3.0, 0.5))
    assert (total.stages, total.wall, total.cpu, total.imports, total.memory) == (2, 6.0, 6.0, 4.0, 0.5)
    assert total.work == 1.0
