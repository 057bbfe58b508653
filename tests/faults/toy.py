"""A DVC project of two stages that do nothing but count, run by the runner of the study: a kill costs two seconds."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.tests.project import ROOT, dvc, environment

from .processes import lives

WORK = """
import sys, time
from pathlib import Path
from contract.shared.durable import write_whole
from contract.shared.lock import sole_writer
from contract.shared.parent import end_with_dvc
from contract.shared.signals import stop_flag

out, steps, orphan = Path(sys.argv[1]), int(sys.argv[2]), "--orphan" in sys.argv
if not orphan:
    end_with_dvc()
with sole_writer(out), stop_flag() as stop:
    place = Path("runs", out.name)  # the checkpoint
    place.parent.mkdir(exist_ok=True)
    while "--wait" in sys.argv and not Path("go").exists():
        time.sleep(0.05)
    done = int(place.read_text()) if place.exists() else 0
    while done < steps:
        time.sleep(0.05)
        done += 1
        with open("runs/trace", "a") as trace:
            trace.write(f"{out.name} {done}\\n")
        if done % 5 == 0 or stop.number:
            write_whole(place, str(done).encode())
        if stop.number:
            sys.exit(143)
    out.parent.mkdir(exist_ok=True)
    write_whole(out, f"{out.name}: {steps}".encode())
"""
GRAPH = """
stages:
  first:
    cmd: python work.py out/first {steps} {options}
    outs: [out/first]
  second:
    cmd: python work.py out/second {steps} {options}
    deps: [out/first]
    outs: [out/second]
"""


def toy(folder: Path, *, steps: int = 20, options: str = "") -> Path:
    """The project, in which nothing has run."""
    folder.mkdir(parents=True)
    for part in ("pipeline", "contract"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "work.py").write_text(WORK)
    (folder / "dvc.yaml").write_text(GRAPH.format(steps=steps, options=options))
    dvc(folder, "init", "--no-scm", "--quiet")
    return folder


def start(project: Path, *arguments: str) -> subprocess.Popen:
    """`python -m pipeline.demo` or another module, in the background; its words in a pipe."""
    command = [sys.executable, "-m", *(arguments or ("pipeline.demo", "--jobs", "2"))]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=project, env=environment(project), stdout=pipe, stderr=pipe, text=True)


def stumbled(top: subprocess.Popen) -> bool:
    """Whether a run that has ended stopped at what a killed DVC left; it may fail at nothing else.

    That is plain `dvc repro`, at a file that is half written or at the lock of a process that has ended, but whose
    number is still there. The runner puts both right, and so does `python -m pipeline.mend`.
    """
    said, errors = top.communicate()
    holders = re.findall(r"\(PID (\d+)\)", errors)
    stumbling = "repro" in top.args and ("corrupted" in errors or (holders and not any(map(lives, map(int, holders)))))
    assert top.returncode == 0 or stumbling, f"the run failed by itself: {said[-3000:]}{errors[-3000:]}"
    return top.returncode != 0


def steps_done(project: Path) -> list[str]:
    """`stage step` of every step that was done, in time."""
    trace = project / "runs" / "trace"
    return trace.read_text().splitlines() if trace.exists() else []


def is_done(project: Path) -> bool:
    """Whether both stages have written what they should."""
    files = (project / "out" / "first", project / "out" / "second")
    return all(f.is_file() and f.read_text().startswith(f.name) for f in files)
