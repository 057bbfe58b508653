"""Machines as they are: other locales, folders and masks, no home, no shared memory, no network, a wrong clock.

In each a slice of the study is run: the world, a teacher, its registration, its zero-shot scores. The results must be
those of an ordinary machine.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.tests.project import VENV, copy_repository, environment

from .study import digests

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("surroundings")]
TEACHER = "refs/scratch/teacher-small.json"
SLICE = (
    ("python", "-m", "world", "--params", "params.yaml", "--out", "data/world"),
    ("distill", "run", "--params", "params.yaml", "--cell", "teacher-small", "--out", "models/scratch"),
    ("distill", "register", "models/scratch/teacher-small", "--refs", "refs/scratch"),
    ("evalsuite", "zeroshot", "--params", "params.yaml", "--model", TEACHER, "--out", "out/zeroshot"),
)
SMALL_SHM = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
NAMESPACES = {
    "no network": ("unshare", "--net"),
    "1 MB of shared memory": ("unshare", "--mount", "sh", "-c", SMALL_SHM, "sh"),
    "a clock two years ahead": ("faketime", "-f", "+2y"),
    "a clock that runs a hundred times as fast": ("faketime", "-f", "+0 x100"),
    "a clock in 1990": ("faketime", "-f", "@1990-01-01 00:00:00"),
}
SETTINGS = {
    "locale C": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no home": {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere", "MPLCONFIGDIR": "/proc/nowhere"},
}


def run_slice(project: Path, before: Sequence[str] = (), umask: int = -1, **settings: str) -> dict[str, str]:
    """Run the slice behind the command `before`; the digests of its results."""
    for command in SLICE:
        program = sys.executable if command[0] == "python" else str(VENV / command[0])
        done = subprocess.run(
            [*before, program, *command[1:]],
            cwd=project,
            env=environment(project, **settings),
            capture_output=True,
            text=True,
            check=False,
            umask=umask,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return digests(project)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory) -> dict[str, str]:
    found = run_slice(copy_repository(tmp_path_factory.mktemp("ordinary")))
    assert {"refs/scratch/teacher-small.json", "out/zeroshot/teacher-small/scores.json"} <= found.keys()
    return found


def needs(before: Sequence[str]) -> None:
    """These need a program of the system, or a right that a container may not give."""
    if not shutil.which(before[0]) or subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"this machine does not run {before[0]} (Debian: util-linux, faketime; root)")


@pytest.mark.parametrize("name", NAMESPACES)
def test_the_slice_has_the_same_results_with(name, ordinary, tmp_path):
    needs(NAMESPACES[name])
    assert run_slice(copy_repository(tmp_path / "study"), NAMESPACES[name]) == ordinary


@pytest.mark.parametrize("name", SETTINGS)
def test_the_slice_has_the_same_results_under(name, ordinary, tmp_path):
    assert run_slice(copy_repository(tmp_path / "study"), **SETTINGS[name]) == ordinary


def test_the_slice_has_the_same_results_in_a_folder_with_spaces_and_umlauts_under_umask_077(ordinary, tmp_path):
    project = copy_repository(tmp_path / "eine Prüfung, 100 % 学")
    assert run_slice(project, umask=0o077) == ordinary
    open_to_others = [
        p for top in ("models", "refs", "out") for p in (project / top).rglob("*") if p.stat().st_mode & 0o077
    ]
    assert open_to_others == []


def test_control_another_seed_has_other_results(ordinary, tmp_path):
    project = copy_repository(tmp_path / "study")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("seed: 7", "seed: 8", 1))
    assert run_slice(project) != ordinary


NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def as_nobody(command: Sequence[str], project: Path, own: Path, **settings: str) -> subprocess.CompletedProcess:
    """Run a command as a user who owns nothing but the folder `own`."""
    return subprocess.run(
        [*NOBODY, str(VENV / command[0]), *command[1:]],
        cwd=project,
        env=environment(project, HOME=str(own), TMPDIR=str(own), **settings),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter; pytest's own they may not."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="kd-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_checkout_that_may_not_be_written_says_so_and_gives_its_results_elsewhere(ordinary, open_folder):
    needs(NOBODY)
    project, own = copy_repository(open_folder / "study"), open_folder / "own"
    subprocess.run([sys.executable, *SLICE[0][1:]], cwd=project, env=environment(project), check=True)
    own.mkdir()
    shutil.chown(own, 65534, 65534)
    train = [*SLICE[1][:6], "--set", f"data.index={own}/index"]
    refused = as_nobody([*train, "--out", "models/scratch"], project, own)
    assert refused.returncode == 6, refused.stderr
    assert "Permission denied" in refused.stderr
    assert "name a place that you may write" in refused.stderr
    assert "Traceback" not in refused.stderr
    server = {"MLFLOW_TRACKING_URI": f"sqlite:///{own}/mlflow.db"}
    for command in (
        [*train, "--out", f"{own}/models", "--runs", f"{own}/runs"],
        ["distill", "register", f"{own}/models/teacher-small", "--refs", f"{own}/refs"],
    ):
        done = as_nobody(command, project, own, **server)
        assert done.returncode == 0, done.stderr
    reference = (own / "refs" / "teacher-small.json").read_bytes()
    assert hashlib.sha256(reference).hexdigest() == ordinary[TEACHER]
