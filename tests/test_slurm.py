"""What stages ask a cluster for, what Slurm is told and asked; `make hosts` runs jobs."""

import os
import sys
from pathlib import Path

import pytest

from contract.shared.params import ParamsError
from pipeline.order import Finished
from pipeline.slurm import driver as driver_module
from pipeline.slurm import schedulers
from pipeline.slurm.driver import Driver, place_of
from pipeline.slurm.job import AGAIN
from pipeline.slurm.resources import Cluster, read_cluster

DEFAULT = Path(__file__).resolve().parents[1] / "pipeline" / "slurm" / "slurm.yaml"


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """Slurm without a cluster: `squeue` is a script that prints a file."""
    monkeypatch.setattr(schedulers, "import_submitit", lambda: None)
    monkeypatch.setattr(schedulers, "ASKED_EVERY", 0.0)
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\ncat {tmp_path}/jobs\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return schedulers.Slurm(tmp_path, read_cluster(DEFAULT, partition="gpu", hours=2.5))


def test_the_first_pattern_that_fits_decides():
    cluster = read_cluster(DEFAULT)
    assert cluster.of("studies/paper/dvc.yaml:student@student-vit-t-16--dfn-l14--clip-kd").gpus == 8
    assert (cluster.of("register_students").gpus, cluster.of("report").cpus) == (0, 4)
    with pytest.raises(ValueError, match="report: none of the patterns"):
        Cluster.model_validate({"stages": {"student@*": {}}}).of("report")


def test_what_the_command_says_takes_the_place_of_the_file_and_gpus_only_of_stages_that_have_any():
    cluster = read_cluster(DEFAULT, gpus=2, partition="p", hours=None)
    assert (cluster.of("student@x").gpus, cluster.of("report").gpus) == (2, 0)
    assert {resources.partition for resources in cluster.stages.values()} == {"p"}
    assert cluster.of("student@x").hours == 24


def test_a_wrong_key_is_refused_with_its_line_and_the_nearest_name(tmp_path):
    (tmp_path / "slurm.yaml").write_text('slurm:\n  stages:\n    "*": {gpu: 8}\n')
    with pytest.raises(ParamsError, match=r"slurm.yaml:3: slurm.stages.\*.gpu: unknown key; did you mean 'gpus'"):
        read_cluster(tmp_path / "slurm.yaml")


def test_slurm_is_told_what_the_stage_asks_for_and_no_gpus_where_it_asks_for_none(slurm):
    asked = slurm.parameters("student@x", slurm._cluster.of("student@x"))
    wanted = {"gpus_per_node": 8, "cpus_per_task": 64, "mem": "400G", "time": 150, "partition": "gpu", "nodes": 1}
    assert wanted.items() <= asked.items()
    assert asked["additional_parameters"]["requeue"] is True
    assert "gpus_per_node" not in slurm.parameters("report", slurm._cluster.of("report"))
    assert "account" not in asked


def test_a_job_is_alive_while_squeue_does_not_say_that_it_is_over(slurm, tmp_path):
    (tmp_path / "jobs").write_text("11 RUNNING\n12 PENDING\n13 COMPLETED\n14 REQUEUED\n15 TIMEOUT\n")
    assert [slurm.alive(job) for job in ("11", "12", "13", "14", "15", "16")] == [True, True, False, True, False, False]
    (tmp_path / "jobs").unlink()  # squeue fails: the controller is away
    assert slurm.alive("11")


def test_without_submitit_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-slurm.txt"):
        schedulers.Local(tmp_path, read_cluster(DEFAULT))


@pytest.mark.parametrize(("said", "again"), [("exited with 75", 1), ("exited with 143", 1), ("exited with 1", 0)])
def test_a_command_that_was_stopped_or_asks_for_it_is_run_again(said, again):
    assert bool(AGAIN.search(f"ERROR: failed to reproduce 'x': failed to run: distill run, {said}\n".encode())) == again


class Jobs:
    """A scheduler whose jobs end as it was told, or vanish (None)."""

    def __init__(self, outcomes: list[str | None]) -> None:
        self.outcomes, self.submitted = outcomes, 0

    def submit(self, job, name, resources) -> str:
        outcome = self.outcomes[self.submitted]
        self.submitted += 1
        if outcome:
            end = job.place.end(str(self.submitted))
            end.write_text(f'{{"outcome": "{outcome}"}}')
        return str(self.submitted)

    def alive(self, job: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("outcomes", "end", "submitted"),
    [
        (["ran"], "ran", 1),
        (["failed"], "failed", 1),
        (["again", "again", "unchanged"], "unchanged", 3),
        ([None, "ran"], "ran", 2),
        ([None, None, None, None], "failed", 3),
        (["again"] * 9, "failed", 5),
    ],
)
def test_a_stage_is_submitted_again_as_often_as_the_cluster_allows(tmp_path, monkeypatch, outcomes, end, submitted):
    monkeypatch.setattr(driver_module, "SHARED_FILES", 0.0)
    jobs = Jobs(outcomes)
    cluster = Cluster.model_validate({"stages": {"*": {}}, "again": 4, "lost": 2, "pause_seconds": 0})
    found = Driver(tmp_path, cluster, jobs).run("cell@a")
    assert isinstance(found, Finished)
    assert (found.outcome, jobs.submitted) == (end, submitted)
    assert found.log == place_of(tmp_path, "cell@a").log
