"""Where jobs run: Slurm, or submitit's local executor, which stands for it on one machine."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from pipeline.slurm.job import StageJob
from pipeline.slurm.resources import Cluster, Resources

ASKED_EVERY = 15.0  # seconds between two questions to squeue, about all jobs at once
# states of Slurm in which a job is no more; in all others it runs, waits, or is about to
OVER = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
OVER |= {"PREEMPTED", "REVOKED"}


class Scheduler(Protocol):
    """Takes jobs and knows which are alive."""

    def submit(self, job: StageJob, name: str, resources: Resources) -> str:
        """Queue a job; its id."""

    def alive(self, job: str) -> bool:
        """Whether the job runs or waits."""

    def cancel(self, jobs: Iterable[str]) -> None:
        """End jobs."""


def import_submitit() -> Any:
    """submitit, or an error that names what to install."""
    try:
        import submitit
    except ImportError:
        raise ValueError("Jobs need submitit: pip install -r requirements-slurm.txt") from None
    return submitit


class Slurm:
    """sbatch, squeue and scancel, on whose nodes the checkout and its environment are at the same path."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._cluster, self._folder = cluster, folder
        self._asked, self._alive, self._lock = -ASKED_EVERY, set[str](), threading.Lock()
        import_submitit()

    def submit(self, job: StageJob, name: str, resources: Resources) -> str:
        executor = import_submitit().SlurmExecutor(self._folder, max_num_timeout=self._cluster.again)
        executor.update_parameters(**self.parameters(name, resources))
        with self._lock:
            submitted = str(executor.submit(job).job_id)
            self._alive.add(submitted)
        return submitted

    def parameters(self, name: str, resources: Resources) -> dict[str, Any]:
        """What submitit is told; it becomes the lines `#SBATCH` of the job."""
        asked = {
            "job_name": name,
            "time": max(1, round(resources.hours * 60)),
            "nodes": resources.nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": resources.cpus,
            "mem": f"{resources.mem_gb}G",
            "signal_delay_s": self._cluster.save_seconds,
            "stderr_to_stdout": True,
            "additional_parameters": {"requeue": True, "open-mode": "append"},
        }
        if resources.gpus:
            asked["gpus_per_node"] = resources.gpus
        if self._cluster.setup:
            asked["setup"] = self._cluster.setup
        named = {key: getattr(resources, key) for key in ("partition", "account", "qos", "constraint")}
        return asked | {key: value for key, value in named.items() if value is not None}

    def alive(self, job: str) -> bool:
        with self._lock:
            if time.monotonic() - self._asked > ASKED_EVERY:
                self._ask()
            return job in self._alive

    def _ask(self) -> None:
        command = ["squeue", "--noheader", "--me", "--states=all", "--format=%i %T"]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode == 0:  # a controller that does not answer has not lost the jobs
            lines = [line.split() for line in said.stdout.splitlines() if line.strip()]
            self._alive = {number for number, state in lines if state not in OVER}
            self._asked = time.monotonic()

    def cancel(self, jobs: Iterable[str]) -> None:
        subprocess.run(["scancel", *jobs], check=True)


class Local:
    """submitit's local executor: jobs are processes of this machine that outlive whoever submitted them."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._folder, self._cluster = folder, cluster
        self._started: dict[str, Any] = {}
        import_submitit()

    def submit(self, job: StageJob, name: str, resources: Resources) -> str:
        executor = import_submitit().LocalExecutor(self._folder, max_num_timeout=self._cluster.again)
        executor.update_parameters(
            timeout_min=resources.hours * 60, signal_delay_s=self._cluster.save_seconds, stderr_to_stdout=True
        )
        submitted = executor.submit(job)
        self._started[str(submitted.job_id)] = submitted
        return str(submitted.job_id)

    def alive(self, job: str) -> bool:
        if job in self._started:
            return not self._started[job].done()
        return _is_controller(int(job))

    def cancel(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            if self.alive(job):
                os.kill(int(job), signal.SIGINT)  # it passes SIGTERM on, and its job survives that


def _is_controller(pid: int) -> bool:
    try:
        return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
