"""A copy of the repository in which the study has its smallest sizes, and commands in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(sys.executable).parent


def lay_over(base: dict, top: Mapping) -> None:
    """Replace what `top` names in `base`; a null removes a key."""
    for key, value in top.items():
        if value is None:
            del base[key]
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            lay_over(base[key], value)
        else:
            base[key] = value


def copy_repository(folder: Path, *, vlms: int = 2) -> Path:
    """The files that git would keep, without the lock, with the smallest parameters and the first `vlms` VLMs."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    lay_over(params, YAML(typ="safe").load(ROOT / "tests" / "pipeline" / "smallest.yaml"))
    cells = params["vlm"]["cells"]
    for name in list(cells)[vlms:]:  # each costs two processes
        del cells[name]
    yaml.dump(params, folder / "params.yaml")
    dvc(folder, "config", "--local", "core.no_scm", "true")
    return folder


def environment(project: Path, **more: str) -> dict[str, str]:
    """This process's, with the project's own code first, one thread, no network, and nothing of a run around us."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_TRACKING", "DVC_"))}
    code = os.pathsep.join(str(p) for p in sorted(project.glob("packages/*/src")))
    settings = {"PATH": f"{VENV}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": code, "OMP_NUM_THREADS": "1"}
    quiet = {"DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}
    return inherited | settings | quiet | more


def python(project: Path, *arguments: str) -> str:
    """What `python -m ARGUMENTS` says in a project; it must succeed."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


def dvc(project: Path, *arguments: str) -> str:
    """What `dvc ARGUMENTS` says in a project; it must succeed."""
    return python(project, "dvc", *arguments)
