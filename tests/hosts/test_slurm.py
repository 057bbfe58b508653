"""Stages as jobs, by submitit's local executor and by a Slurm of one node: kills, time that is up, what is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from .slurm_cluster import require_slurm, slurm

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.hosts, pytest.mark.xdist_group("hosts")]
CELLS = ("a", "b", "c")
# a cell counts to 40 and keeps its place, as a training does; every count is noted
COUNT = """
import pathlib, signal, sys, time
name, seconds, source = sys.argv[1], float(sys.argv[2]), pathlib.Path(sys.argv[3])
counted = pathlib.Path("runs") / f"{name}.counted"
counted.parent.mkdir(exist_ok=True)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
done = len(counted.read_text().split()) if counted.exists() else 0
for number in range(done, 40):
    if stop:
        sys.exit(143)
    time.sleep(seconds)
    with counted.open("a") as file:
        file.write(f"{number}\\n")
pathlib.Path(f"{name}.out").write_text(f"{name} {sum(range(40))} {source.read_text()}")
"""
GRAPH = """
stages:
  data:
    cmd: python -c "open('data.out', 'w').write('data')"
    outs: [data.out]
  cell:
    foreach: [a, b, c]
    do:
      cmd: python count.py ${item} 0.4 data.out
      deps: [data.out, count.py]
      outs: ["${item}.out"]
  report:
    cmd: cat a.out b.out c.out > report.out
    deps: [a.out, b.out, c.out]
    outs: [report.out]
"""
RESOURCES = """
slurm:
  stages: {"cell@*": {gpus: 0, hours: HOURS}, "*": {cpus: 1}}
  save_seconds: 10
  pause_seconds: 0.1
"""


def environment() -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "SUBMITIT_"))}
    return inherited | own | {"DVC_NO_ANALYTICS": "1"}


def dvc(study: Path, *words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=study, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_study(folder: Path, hours: str = "1.0") -> Path:
    folder.mkdir()
    (folder / "count.py").write_text(COUNT)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "slurm.yaml").write_text(RESOURCES.replace("HOURS", hours))
    dvc(folder, "init", "--quiet", "--no-scm")
    return folder


@pytest.fixture(scope="module")
def slurm_conf(tmp_path_factory):
    """The configuration of a Slurm of one node that runs until the tests of this file are done."""
    require_slurm()
    with slurm(tmp_path_factory.mktemp("slurm")) as conf:
        yield conf


@pytest.fixture(params=["local", "slurm"])
def scheduler(request, monkeypatch) -> str:
    if request.param == "slurm":
        monkeypatch.setenv("SLURM_CONF", request.getfixturevalue("slurm_conf"))
    return request.param


@pytest.fixture
def study(tmp_path, scheduler):
    folder = write_study(tmp_path / "study")
    yield folder
    if scheduler == "slurm":
        subprocess.run(["scancel", "--me"], check=False)
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(folder):
            process.kill()


def driver(study: Path, *more: str) -> subprocess.Popen:
    where = [] if "SLURM_CONF" in os.environ else ["--local"]
    command = [sys.executable, "-m", "pipeline.slurm", "dvc.yaml", *where, "--root", str(study), *more]
    with (study / "driver.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def said(study: Path) -> str:
    logs = [study / "driver.log", *sorted((study / "runs" / "logs").glob("*.log"))]
    return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


def counted(study: Path, cell: str) -> list[int]:
    file = study / "runs" / f"{cell}.counted"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def until(happens, study: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, said(study)
        time.sleep(0.05)


def is_whole(study: Path) -> None:
    """The outputs of `dvc repro`, no count lost or done twice, a log a stage, and nothing to do."""
    report = "".join(f"{cell} {sum(range(40))} data" for cell in CELLS)
    assert (study / "report.out").read_text() == report
    for cell in CELLS:
        assert counted(study, cell) == list(range(40)), said(study)
    logs = sorted(log.name for log in (study / "runs" / "logs").iterdir())
    assert logs == sorted([*(f"cell@{cell}.log" for cell in CELLS), "data.log", "report.log"])
    assert json.loads(dvc(study, "status", "--json")) == {}


def job_of(study: Path, cell: str) -> str:
    return str(json.loads((study / "runs" / "slurm" / f"cell@{cell}" / "job.json").read_bytes())["job"])


def processes_of(study: Path, cell: str) -> list[psutil.Process]:
    """All that runs of a cell's job."""
    job = job_of(study, cell)
    if "SLURM_CONF" in os.environ:
        listed = subprocess.run(["scontrol", "listpids", job], capture_output=True, text=True, check=False).stdout
        pids = [int(line.split()[0]) for line in listed.splitlines()[1:]]
    else:
        pids = [int(job)]
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return [*found, *(child for process in found for child in process.children(recursive=True))]


def test_stages_run_as_jobs_and_leave_what_dvc_repro_leaves(study, tmp_path):
    assert driver(study).wait(240) == 0, said(study)
    is_whole(study)
    other = write_study(tmp_path / "other")
    dvc(other, "repro")
    for name in ("data.out", "report.out", *(f"{cell}.out" for cell in CELLS)):
        assert (study / name).read_bytes() == (other / name).read_bytes()
    locks = [YAML(typ="safe").load(folder / "dvc.lock") for folder in (study, other)]
    assert locks[0] == locks[1]
    assert driver(study).wait(120) == 0
    assert "0 stages ran" in (study / "driver.log").read_text()


def test_jobs_go_on_without_a_killed_driver_and_the_next_one_starts_no_cell_twice(study):
    first = driver(study)
    until(lambda: all(len(counted(study, cell)) > 3 for cell in CELLS), study)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = driver(study)
    assert second.wait(240) == 0, said(study)
    assert "3 jobs run already" in said(study)
    for cell in CELLS:
        assert (study / "runs" / "logs" / f"cell@{cell}.log").read_text().count("--- ") == 1
    is_whole(study)


def test_a_killed_job_is_submitted_again_and_goes_on_from_its_place(study):
    running = driver(study)
    until(lambda: len(counted(study, "b")) > 5, study)
    for process in processes_of(study, "b"):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert running.wait(240) == 0, said(study)
    log = (study / "runs" / "logs" / "cell@b.log").read_text()
    assert "is gone without a word" in log
    assert log.count(" on ") >= 2
    is_whole(study)


def test_a_job_whose_time_is_up_saves_and_is_queued_again(tmp_path, scheduler):
    # 36 seconds, of which 10 are for saving; Slurm counts in minutes
    study = write_study(tmp_path / "study", hours="0.01")
    seconds = {"local": "1.0", "slurm": "2.0"}[scheduler]
    (study / "dvc.yaml").write_text(GRAPH.replace("0.4 data.out", f"{seconds} data.out"))
    assert driver(study).wait(560) == 0, said(study)
    assert "asked to save; it is queued again" in said(study)
    is_whole(study)


def test_ctrl_c_leaves_the_jobs_and_cancel_ends_them(study):
    running = driver(study)
    until(lambda: all(len(counted(study, cell)) > 3 for cell in CELLS), study)
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    assert "the jobs go on" in said(study)
    assert driver(study, "--cancel").wait(60) == 0
    assert "cancelled" in said(study)
    until(lambda: not any(processes_of(study, cell) for cell in CELLS), study, 60)
    before = {cell: len(counted(study, cell)) for cell in CELLS}
    time.sleep(2)
    assert {cell: len(counted(study, cell)) for cell in CELLS} == before
    assert driver(study).wait(240) == 0, said(study)
    is_whole(study)


def test_a_second_driver_is_refused_and_the_first_goes_on(study):
    first = driver(study)
    until(lambda: len(counted(study, "a")) > 3, study)
    assert driver(study).wait(60) == 7
    assert first.wait(240) == 0, said(study)
    is_whole(study)


def test_a_cell_that_fails_is_shown_and_not_submitted_again(study):
    graph = GRAPH.replace("python count.py ${item}", "test ${item} != b && python count.py ${item}")
    (study / "dvc.yaml").write_text(graph)
    assert driver(study).wait(240) == 1
    assert "failed" in said(study)
    assert (study / "runs" / "logs" / "cell@b.log").read_text().count(" on ") == 1
    assert not (study / "report.out").exists()
