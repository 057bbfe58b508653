"""Run the benchmarks and write what they found to docs/benchmarks.md.

    python -m benchmarks [NAME ...] [--photos FOLDER] [--captions FILE.csv]

A name is one of the table's or the beginning of some. Ends with 1 where a benchmark fails or misses its bar.
"""

import argparse
import datetime
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import results
from benchmarks.figures import read
from benchmarks.results import Run
from benchmarks.table import BENCHMARKS, Benchmark


def command_of(benchmark: Benchmark, photos: str, captions: str) -> list[str]:
    """What runs a benchmark, after the interpreter."""
    given = {"photos": photos, "captions": captions}
    options = {name: f"--{name} {path}" if path else "" for name, path in given.items()}
    arguments = shlex.split(benchmark.arguments.format(**options))
    return [f"benchmarks/{benchmark.script}.py", *arguments, *(["--device", "cuda"] if benchmark.cuda else [])]


def run(benchmark: Benchmark, photos: str, captions: str, device: str) -> Run:
    """Run one in a process of its own, what it prints shown as it comes."""
    words = command_of(benchmark, photos, captions)
    threads = {} if benchmark.cuda else {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    load, start, output = os.getloadavg()[0], time.monotonic(), []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-u", *words], env=os.environ | threads, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        for text in process.stdout or ():
            output.append(text)
            if not text.startswith('{"figures"'):
                print(f"    {text}", end="", flush=True)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        said = errors.read().strip()
    figures, failure = [], ""
    try:
        if process.returncode:
            raise ValueError(said.splitlines()[-1] if said else f"ended with {process.returncode}")
        figures = read("".join(output))
    except ValueError as e:
        failure = str(e)
        print(f"    {said[-2000:]}", file=sys.stderr)
    shown = shlex.join(["python", *command_of(benchmark, photos and "FOLDER", captions and "FILE.csv")])
    return Run(
        command=shown,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        machine=results.machine(device if benchmark.cuda else ""),
        load=round(load, 1),
        seconds=round(time.monotonic() - start, 1),
        cpu_seconds=round(used.ru_utime + used.ru_stime, 1),
        memory=round(used.ru_maxrss / 2**20, 2),
        figures=figures,
        failure=failure,
    )


def gpu() -> str:
    """The name of the GPU; empty where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def chosen(names: list[str]) -> list[Benchmark]:
    """Those whose name is or begins with one of `names`; all where there are none.

    Raises:
        SystemExit: If a name fits none.
    """
    for name in names:
        if not any(benchmark.name.startswith(name) for benchmark in BENCHMARKS):
            known = ", ".join(benchmark.name for benchmark in BENCHMARKS)
            raise SystemExit(f"There is no benchmark {name!r}; there are {known}.")
    exact = {benchmark.name for benchmark in BENCHMARKS} & set(names)
    beginnings = tuple(name for name in names if name not in exact)
    return [b for b in BENCHMARKS if not names or b.name in exact or b.name.startswith(beginnings)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--photos", default="", help="a folder of JPEGs; without it photos are made up")
    parser.add_argument("--captions", default="", help="a CSV of image and caption; without it lengths are made up")
    options = parser.parse_args()
    device, runs, verdicts = gpu(), results.load(), {}
    for benchmark in chosen(options.names):
        if benchmark.cuda and not device:
            print(f"{benchmark.name}: not run, there is no GPU")
            continue
        print(f"{benchmark.name}: {shlex.join(command_of(benchmark, options.photos, options.captions))}", flush=True)
        runs[benchmark.name] = run(benchmark, options.photos, options.captions, device)
        verdicts[benchmark.name] = runs[benchmark.name].verdict
        results.save(runs)
    print(f"\n{results.PAGE.relative_to(Path.cwd())}")
    bad = {name: verdict for name, verdict in verdicts.items() if verdict != "held"}
    for name, verdict in bad.items():
        print(f"{name}: {verdict}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
