"""What the benchmarks found last, as JSON, and the page made of it."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import jinja2

from benchmarks.figures import Figure, said
from benchmarks.table import BENCHMARKS, Benchmark

HERE = Path(__file__).resolve().parent
STORED = HERE.parent / "docs" / "benchmarks" / "results.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"
VERSIONS = ("torch", "transformers", "numpy")


class Run(NamedTuple):
    """One benchmark run once.

    Args:
        command: As it can be run alone.
        date: Of the day, in ISO's form.
        machine: Processor, memory and versions, in words.
        load: The load average when it began; on a busy machine wall times are worth little.
        seconds: From its start to its end.
        cpu_seconds: Of all its processes.
        memory: GiB of the largest of its processes.
        figures: What it found; none where it failed.
        failure: Its last words where it failed, else empty.
    """

    command: str
    date: str
    machine: str
    load: float
    seconds: float
    cpu_seconds: float
    memory: float
    figures: list[Figure]
    failure: str = ""

    @property
    def verdict(self) -> str:
        """`held`, `missed` or `failed`."""
        if self.failure:
            return "failed"
        return "missed" if any(figure.held is False for figure in self.figures) else "held"


def machine(device: str = "") -> str:
    """This machine and what runs on it, in words."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB", f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            parts.append(f"no {name}")
    return ", ".join([*([device] if device else []), *parts])


def load(path: Path = STORED) -> dict[str, Run]:
    """The last run of each benchmark, by name; those that are no longer in the table are let go."""
    if not path.exists():
        return {}
    stored = json.loads(path.read_text())
    names = {benchmark.name for benchmark in BENCHMARKS}
    return {
        name: Run(**{**fields, "figures": [Figure(**figure) for figure in fields["figures"]]})
        for name, fields in stored.items()
        if name in names
    }


def save(runs: dict[str, Run], path: Path = STORED, page: Path = PAGE) -> None:
    """The results and the page, in the order of the table."""
    ordered = {b.name: runs[b.name] for b in BENCHMARKS if b.name in runs}
    plain = {name: run._asdict() | {"figures": [vars(f) for f in run.figures]} for name, run in ordered.items()}
    path.write_text(json.dumps(plain, indent=1) + "\n")
    page.write_text(render(ordered))


def render(runs: dict[str, Run]) -> str:
    """The page as Markdown."""
    environment = jinja2.Environment(  # noqa: S701  Markdown, of our own words
        loader=jinja2.FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    machines = list(dict.fromkeys(run.machine for run in runs.values()))
    groups: dict[str, list[tuple[Benchmark, Run]]] = {}
    for benchmark in BENCHMARKS:
        if benchmark.name in runs:
            groups.setdefault(benchmark.of, []).append((benchmark, runs[benchmark.name]))
    without = [benchmark for benchmark in BENCHMARKS if benchmark.name not in runs]
    letters = {name: chr(ord("A") + k) for k, name in enumerate(machines)}
    return environment.get_template("page.md.jinja").render(groups=groups, without=without, letters=letters, said=said)
