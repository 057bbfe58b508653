"""Where the time and the memory of the demo go: each stage, its imports, DVC, and what is left for the work itself.

    python benchmarks/pipeline.py [--jobs 2] [--params FILE]

Runs all stages of the study in a fresh copy of the tracked files, as `make demo` does, then `dvc repro` again, which
has nothing to do. CPU times are those that the kernel counted for DVC's process of a stage and for all that it started;
memory is the sum of the proportional set sizes of a stage's processes, sampled twice a second. Imports: each process of
a stage lists its own (`PYTHONPROFILEIMPORTTIME`, which DVC's own process ignores); afterwards a process that does
nothing but import the same modules in the same order is timed, its interpreter's start included. Work is what remains:
CPU time of a stage less imports and DVC. `--params` lays a YAML file over params.yaml, for a try at small sizes.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from figures import Figure, show
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.demo import prepare_dvc  # noqa: E402
from pipeline.parallel import Finished, dependencies, environment, in_order, sensible_jobs  # noqa: E402

WALL_BAR, MEMORY_BAR, NOTHING_BAR = 720, 8, 15  # seconds, GiB, seconds
MARK = "import time:"
IMPORT_ALL = """
import importlib, os, sys, time
sys.path.append(os.getcwd())
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except BaseException:
        pass
print(time.process_time())
"""


@dataclass
class Spent:
    """What the stages of one kind took: seconds of CPU unless it says otherwise; memory in GiB."""

    stages: int = 0
    wall: float = 0.0
    dvc: float = 0.0
    commands: float = 0.0
    imports: float = 0.0
    memory: float = 0.0

    @property
    def cpu(self) -> float:
        return self.dvc + self.commands

    @property
    def work(self) -> float:
        return max(0.0, self.commands - self.imports)

    def add(self, other: "Spent") -> None:
        for name in ("stages", "wall", "dvc", "commands", "imports"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.memory = max(self.memory, other.memory)


@dataclass
class Watch:
    """Samples the memory of the processes of each stage that runs, and of all together."""

    most: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    at_once: float = 0.0
    _pids: dict[str, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._loop, daemon=True)
        thread.start()
        yield
        self._over.set()
        thread.join()

    def begin(self, stage: str, pid: int) -> None:
        self._pids[stage] = pid

    def end(self, stage: str) -> None:
        del self._pids[stage]

    def _loop(self) -> None:
        while not self._over.wait(0.5):
            now = {stage: _memory(pid) for stage, pid in list(self._pids.items())}
            for stage, size in now.items():
                self.most[stage] = max(self.most[stage], size)
            self.at_once = max(self.at_once, sum(now.values()))


def _memory(pid: int) -> float:
    """GiB of a process and all below it; a process that ends meanwhile counts nothing."""
    total = 0
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total / 2**30


def copy_of_the_tree(folder: Path, over: Path | None) -> None:
    """The tracked files, with `over` laid over params.yaml, ready for DVC."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    if over is not None:
        yaml = YAML()
        params = yaml.load(folder / "params.yaml")
        _lay(params, YAML(typ="safe").load(over))
        yaml.dump(params, folder / "params.yaml")
    prepare_dvc(folder)


def _lay(base: Any, top: Mapping[str, Any]) -> None:
    for key, value in top.items():
        if value is None:
            del base[key]
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            _lay(base[key], value)
        else:
            base[key] = value


def run_dvc(root: Path, arguments: list[str], log: Path, env: dict[str, str], watch: Watch) -> tuple[int, Spent]:
    """`dvc` with these arguments to its end: its exit status and what it took."""
    command, stage, start = [sys.executable, "-E", "-m", "dvc", *arguments], arguments[-1], time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=root, env=env, stdout=file, stderr=subprocess.STDOUT)
    watch.begin(stage, process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended and its times can still be read
    times = psutil.Process(process.pid).cpu_times()
    watch.end(stage)
    status = process.wait()
    own, below = times.user + times.system, times.children_user + times.children_system
    return status, Spent(1, time.monotonic() - start, own, below)


class Imports:
    """CPU seconds of processes that only import; the same list is timed once."""

    def __init__(self, root: Path, env: dict[str, str]) -> None:
        self.root, self.env = root, env
        self.known: dict[tuple[str, ...], float] = {}

    def seconds(self, log: Path) -> float:
        """Of all processes whose imports a log lists. Those of processes side by side are shared out evenly."""
        lists: list[list[str]] = []
        for line in log.read_text(errors="replace").splitlines():
            if not line.startswith(MARK):
                continue
            name = line.rsplit("|", 1)[-1].strip()
            if name == "imported package":
                lists.append([])
            elif lists:
                lists[-1].append(name)
        return sum(self._timed(tuple(names)) for names in lists)

    def _timed(self, names: tuple[str, ...]) -> float:
        if names not in self.known:
            done = subprocess.run(
                [sys.executable, "-c", IMPORT_ALL],
                cwd=self.root,
                env=self.env,
                input="\n".join(names),
                capture_output=True,
                text=True,
                check=True,
            )
            self.known[names] = float(done.stdout.split()[-1])
        return self.known[names]


def kind_of(stage: str) -> str:
    """`distilled@student-vit` is one of the `distilled`."""
    return stage.split("@")[0]


def measure(root: Path, jobs: int, watch: Watch) -> tuple[dict[str, Spent], float]:
    """What each kind of stage took, and the seconds from the first to the last."""
    from dvc.repo import Repo

    logs = root / "runs" / "logs"
    logs.mkdir(parents=True)
    with contextlib.chdir(root), Repo(str(root)) as repo:  # DVC names stages from where one stands
        needs = dependencies(repo, "dvc.yaml")
    plain = environment(jobs) | {"MLFLOW_DISABLE_TELEMETRY": "true", "DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"}
    spent: dict[str, Spent] = {}

    def run(stage: str) -> Finished:
        log = logs / f"{stage}.log"
        arguments = ["--wait-for-lock", "repro", "--single-item", stage]
        status, spent[stage] = run_dvc(root, arguments, log, plain | {"PYTHONPROFILEIMPORTTIME": "1"}, watch)
        return Finished(stage, "failed" if status else "ran", spent[stage].wall, log)

    start = time.monotonic()
    with watch.watching():
        ends = in_order(needs, set(needs), jobs, run, lambda stage: None, said)
    wall = time.monotonic() - start
    if ends[-1].outcome == "failed":
        lines = [line for line in ends[-1].log.read_text(errors="replace").splitlines() if not line.startswith(MARK)]
        raise SystemExit("\n".join([f"{ends[-1].stage} failed", *lines[-20:]]))
    imports, kinds = Imports(root, plain), dict[str, Spent]()
    for stage in needs:
        spent[stage].imports = imports.seconds(logs / f"{stage}.log")
        spent[stage].memory = watch.most[stage]
        kinds.setdefault(kind_of(stage), Spent()).add(spent[stage])
    return kinds, wall


def said(end: Finished) -> None:
    print(f"{end.seconds:6.0f} s  {end.stage}", flush=True)


def nothing_to_do(root: Path, env: dict[str, str]) -> Spent:
    """`dvc repro` where everything is there.

    Raises:
        SystemExit: If a stage but `registry`, which always looks, runs again.
    """
    log = root / "runs" / "again.log"
    status, spent = run_dvc(root, ["repro"], log, env, Watch())
    ran = {line.split("'")[1] for line in log.read_text().splitlines() if line.startswith("Running stage '")}
    if status or ran - {"registry"}:
        raise SystemExit(f"dvc repro ended with {status} and ran {sorted(ran)} again")
    return spent


def figures(kinds: dict[str, Spent], wall: float, at_once: float, again: Spent, jobs: int) -> list[Figure]:
    total = Spent()
    for spent in kinds.values():
        total.add(spent)
    shares = {"work": total.work, "imports": total.imports, "DVC": total.dvc}
    parts = {name: f"{100 * value / total.cpu:.0f} %" for name, value in shares.items()}
    what = f"the demo, {total.stages} stages, {jobs} at a time"
    return [
        Figure(f"{what}: from the first to the last", wall, "s", at_most=WALL_BAR),
        Figure("its memory, all processes at once", at_once, "GiB", at_most=MEMORY_BAR),
        Figure(
            "its CPU time that is work, neither imports nor DVC",
            100 * total.work / total.cpu,
            "%",
            limit=100,
            limit_of="all of it",
            seen=f"{total.cpu:.0f} s: work {parts['work']}, imports {parts['imports']}, DVC {parts['DVC']}",
        ),
        Figure(
            "`dvc repro` where nothing is to be done",
            again.wall,
            "s",
            at_most=NOTHING_BAR,
            seen=f"{again.cpu:.1f} s of CPU",
        ),
        *(_of_kind(kind, spent) for kind, spent in kinds.items()),
    ]


def _of_kind(kind: str, spent: Spent) -> Figure:
    several = f" ({spent.stages})" if spent.stages > 1 else ""
    seen = f"work {spent.work:.1f} s, imports {spent.imports:.1f} s, DVC {spent.dvc:.1f} s; {spent.memory:.2f} GiB"
    return Figure(f"CPU time of `{kind}`{several}", spent.cpu, "s", seen=f"{seen}, {spent.wall:.0f} s of wall time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=sensible_jobs(), help="stages at a time (default: %(default)s)")
    parser.add_argument("--params", type=Path, help="YAML to lay over params.yaml")
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="kd-demo-") as name:
        root = Path(name)
        copy_of_the_tree(root, options.params)
        watch = Watch()
        kinds, wall = measure(root, options.jobs, watch)
        again = nothing_to_do(root, environment(1))
    show(*figures(kinds, wall, watch.at_once, again, options.jobs))


if __name__ == "__main__":
    main()
