"""What one line of the journal costs a training while MLflow works, and while it swallows every request.

    python benchmarks/distill_journal.py [--lines 300]

CPU time of the training's thread and wall time (the line waits for the disk), both states in turn, in one process.
"""

import argparse
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

from figures import Figure, show
from kd_distill import tracking
from kd_distill.journal import Journal

STEP = 0.25  # seconds: a step of the demo is slower, one of a GPU logs every 25th


def lines(folder: Path, address: str, count: int) -> tuple[list[float], list[float]]:
    """CPU and wall seconds of each of `count` calls."""
    os.environ["MLFLOW_TRACKING_URI"] = address
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()
    journal = Journal.open(folder / "journal.jsonl", experiment="distill", name="benchmark", params={})
    cpu, wall = [], []
    for step in range(count):
        before = time.thread_time(), time.perf_counter()
        journal.metrics(step, {f"train/{name}": 1.0 for name in ("task", "ckd", "fd", "icl", "loss", "lr")})
        cpu.append(time.thread_time() - before[0])
        wall.append(time.perf_counter() - before[1])
        time.sleep(0.01)
    journal.close(0.0)
    return cpu, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300)
    count = parser.parse_args().lines
    hole = socket.create_server(("127.0.0.1", 0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        addresses = {
            "works": f"sqlite:///{folder / 'mlflow.db'}",
            "swallows": f"http://127.0.0.1:{hole.getsockname()[1]}",
        }
        os.environ["MLFLOW_TRACKING_URI"] = addresses["works"]
        tracking.client()
        found: dict[str, list[tuple[list[float], list[float]]]] = {state: [] for state in addresses}
        for turn in range(3):
            for state, address in addresses.items():
                found[state].append(lines(folder / f"{state}-{turn}", address, count))
        for state, turns in found.items():
            cpu = min(statistics.fmean(c) for c, _ in turns)
            wall = min(statistics.median(w) for _, w in turns)
            slowest = max(max(w) for _, w in turns)
            figures = f"{1e3 * cpu:.2f} ms CPU, {1e3 * wall:.2f} ms wall a line"
            print(f"MLflow {state}: {figures}, at most {1e3 * slowest:.0f} ms")
    print("bound: one fsync of a small file a line, which is most of the wall time")
    wall = min(statistics.median(w) for _, w in found["swallows"])
    share = wall / (25 * STEP)
    show(
        Figure(
            f"share of steps of {STEP} s while MLflow swallows every request, a line every 25 steps",
            100 * share,
            "%",
            at_most=1,
            seen=f"{1e3 * wall:.2f} ms a line",
        )
    )


if __name__ == "__main__":
    main()
