"""Run a study's stages as jobs of a Slurm cluster: the same graph, parameters and logs as `make demo`.

    python -m pipeline.slurm studies/paper/dvc.yaml --partition gpu --at-once 20

Killed or interrupted, it leaves the jobs alone; the same command finds them again. What a stage asks for stands in
slurm.yaml beside the dvc.yaml, or in pipeline/slurm/slurm.yaml.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from pipeline.board import TerminalBoard
from pipeline.demo import ROOT, alone, prepare_dvc, summed_up
from pipeline.mend import mend
from pipeline.slurm.driver import Driver
from pipeline.slurm.resources import read_cluster
from pipeline.slurm.schedulers import Local, Slurm
from pipeline.stopping import Asked, asked_to_stop

DEFAULT = Path(__file__).parent / "slurm.yaml"


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", default="dvc.yaml", help="the dvc.yaml, in the repository")
    parser.add_argument("--resources", type=Path, help="YAML file with a section `slurm`")
    parser.add_argument("--partition", help="of all jobs")
    parser.add_argument("--account", help="of all jobs")
    parser.add_argument("--qos", help="of all jobs")
    parser.add_argument("--gpus", type=int, help="a node, of the jobs that have any")
    parser.add_argument("--time", type=float, dest="hours", help="hours of a job; then it saves and is queued again")
    parser.add_argument("--at-once", type=int, default=20, help="jobs in the queue at most (default: %(default)s)")
    parser.add_argument("--local", action="store_true", help="jobs are processes of this machine; needs no cluster")
    parser.add_argument("--cancel", action="store_true", help="end the jobs that run, and submit none")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this one)")
    return parser.parse_args()


def main() -> int:
    """Submit, wait and show."""
    asked = options()
    root = asked.root.resolve()
    os.chdir(root)  # jobs begin where they are submitted
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    beside = (root / asked.file).with_name("slurm.yaml")
    changes = {key: getattr(asked, key) for key in ("partition", "account", "qos", "gpus", "hours")}
    try:
        cluster = read_cluster(asked.resources or (beside if beside.is_file() else DEFAULT), **changes)
        folder = root / "runs" / "slurm" / ".submitit"
        scheduler = Local(folder, cluster) if asked.local else Slurm(folder, cluster)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    driver = Driver(root, cluster, scheduler)
    if asked.cancel:
        jobs = dict(driver.running())
        scheduler.cancel(jobs.values())
        print("\n".join(f"cancelled {job}  {stage}" for stage, job in jobs.items()) or "no job runs")
        return 0
    return _reproduce(driver, root, asked.file, asked.at_once)


def _reproduce(driver: Driver, root: Path, file: str, at_once: int) -> int:
    prepare_dvc(root)
    start = time.monotonic()
    with alone(root):
        found = list(driver.running())
        for line in [] if found else mend(root):  # only while no dvc runs
            print(line, flush=True)
        print(f"{file}: {len(found)} jobs run already, logs of the stages in runs/logs", flush=True)
        with asked_to_stop(), TerminalBoard(root) as board:
            ends = driver.reproduce(file, at_once, board)
    return 0 if summed_up(ends, time.monotonic() - start, "The same command") else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Asked as signal:
        print(f"\nLeft by {signal}; the jobs go on. The same command finds them, --cancel ends them.", file=sys.stderr)
        sys.exit(signal.exit_code)
