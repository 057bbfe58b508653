"""The report, tables and figures of the paper's whole grid: 46 VLMs x 16 tasks x 5000 items, and 17 encoders.

    python benchmarks/analysis_tables.py [--items 5000] [--n-bootstrap 2000]

Scores are made up and written in the form of the evaluation, then read, analysed and drawn as `analysis report` does.
Times are the CPU time of the thread. Beside them: what parsing the same lines with `json.loads` alone costs (no program
that reads JSON lines does less), and what plain resampling of items costs for one of the intervals.
"""

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from clock import least
from figures import Figure, show
from kd_analysis.claims import Resampling
from kd_analysis.clustered import Clustered, difference
from kd_analysis.findings import Settings, find, read_inputs
from kd_analysis.report import write
from kd_analysis.scores import read_scored, suite
from kd_analysis.stats import bootstrap
from kd_analysis.tasks import TASKS

TEACHERS = {"siglip-so400m": 1.0, "dfn-vit-l": 0.8, "clip-vit-l": 0.9, "dfn-vit-b": 0.6, "clip-vit-b": 0.65}
STUDENTS = {"vit-t": tuple(TEACHERS), "mobile-vit": ("dfn-vit-l", "dfn-vit-b"), "swin-t": ("dfn-vit-l", "dfn-vit-b"),
            "convnext-t": ("dfn-vit-l", "dfn-vit-b")}  # fmt: skip
LLMS, FRAMEWORKS = ("qwen2", "smollm"), ("tinyllava", "bunny")
BUDGET = 60.0  # seconds


def encoders() -> dict[str, float]:
    """Registered names with a skill: five teachers, the released student, eleven students."""
    found = {f"teacher-{t}": skill for t, skill in TEACHERS.items()} | {"teacher-clip-kd-vit-t": 0.2}
    return found | {
        f"student-{s}--{t}--clip-kd": 0.3 + 0.02 * i for s, ts in STUDENTS.items() for i, t in enumerate(ts)
    }


def vlms() -> dict[str, float]:
    """24 on pretrained encoders (two frameworks, two language models), 22 on students (one framework)."""
    found = {}
    for name, skill in encoders().items():
        for llm in LLMS:
            for framework in FRAMEWORKS if name.startswith("teacher") else FRAMEWORKS[:1]:
                found[f"vlm-{name.replace('--', '-')}--{llm}--{framework}"] = skill
    return found


def make(root: Path, name: str, skill: float, tasks: list[str], items: int) -> None:
    """One model's folder; two items in three share an image with another."""
    folder = root / name
    folder.mkdir(parents=True)
    scores = []
    with (folder / "items.jsonl").open("w") as lines:
        for task in tasks:
            hard = np.random.default_rng(zlib.crc32(task.encode())).normal(0, 1.4, items)
            luck = np.random.default_rng(zlib.crc32(f"{name}{task}".encode())).random(items)
            right = luck < 0.2 + 0.8 / (1 + np.exp(hard - skill))
            text = [
                f'{{"task": "{task}", "id": "{task}-{i}", "cluster": "image-{i * 2 // 3}", "score": {int(r)}.0}}\n'
                for i, r in enumerate(right)
            ]
            lines.writelines(text)
            best = 2000.0 if task == "mme_perception" else 1.0
            mean = float(right.mean())
            scores.append(
                {
                    "benchmark": task, "benchmark_version": "paper-1+00000000", "value": best * mean, "best": best,
                    "metric": "top1" if task == "zeroshot" else "accuracy", "n": items, "chance": 0.2 * best,
                    "stderr": best * float(right.std()) / items**0.5, "n_unparsed": 0, "top_answer_share": 0.3,
                }
            )  # fmt: skip
    model = {"kind": name.partition("-")[0], "name": name, "sha256": f"{zlib.crc32(name.encode()):08x}" * 8}
    whole = {"schema": "kd-scores/1", "model": model, "blind": False, "scores": scores}
    (folder / "scores.json").write_text(json.dumps(whole))


def parse_alone(root: Path) -> None:
    """Every line through `json.loads`, and nothing else."""
    for path in sorted(root.glob("*/*/items.jsonl")):
        with path.open() as lines:
            for line in lines:
                json.loads(line)


def plain_bootstrap(task: Clustered, n: int) -> tuple[float, float]:
    """Indices of clusters drawn one by one: what most scripts do."""
    rng = np.random.default_rng(0)
    means = np.empty(n)
    for i in range(n):
        drawn = rng.integers(len(task.ids), size=len(task.ids))
        means[i] = task.points[drawn].sum() / task.weight[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def timed(what: str, run: Callable[[], object]) -> tuple[float, object]:
    begin = time.thread_time()
    found = run()
    taken = time.thread_time() - begin
    print(f"{what:<58}{taken:8.2f} s")
    return taken, found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--n-bootstrap", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, skill in encoders().items():
            make(root / "zeroshot", name, skill, ["zeroshot"], options.items)
        for name, skill in vlms().items():
            make(root / "eval", name, skill, list(TASKS), options.items)
        size = sum(p.stat().st_size for p in root.glob("*/*/items.jsonl"))
        print(f"{len(vlms())} VLMs x {len(TASKS)} tasks x {options.items} items, {len(encoders())} encoders")
        print(f"{size / 1e6:.0f} MB of items")
        settings = Settings(Resampling(0, options.n_bootstrap, 0.95))
        read, inputs = timed(
            "reading the items", lambda: read_inputs([root / "zeroshot"], [root / "eval"], root / "cka")
        )
        ask, found = timed("intervals, tables and statistics", lambda: find(*inputs, settings))  # type: ignore[misc]
        draw, _ = timed("pages and figures", lambda: write(found, root / "report"))  # type: ignore[arg-type]
        bound, _ = timed("(json.loads of the same lines, alone)", lambda: parse_alone(root))
        total = read + ask + draw
        one, two = (suite(m)["gqa"] for m in read_scored(root / "eval")[:2])
        gap = difference({"gqa": one}, {"gqa": two})
        sides = {
            "kinds": lambda: bootstrap(gap, np.random.default_rng(0), n_bootstrap=options.n_bootstrap),
            "plain": lambda: plain_bootstrap(gap["gqa"], options.n_bootstrap),
        }
        seconds = least(sides, 5, "cpu")
        print(
            f"one interval: {1e3 * seconds['kinds']:.2f} ms by kinds of clusters, {1e3 * seconds['plain']:.1f} ms plain"
        )
    show(
        Figure(
            "report, tables and figures of the paper's whole grid",
            total,
            "s",
            at_most=BUDGET,
            limit=bound,
            limit_of="json.loads of the same lines",
            seen=f"reading {read:.1f} s, statistics {ask:.1f} s, pages {draw:.1f} s",
        ),
        Figure(
            "an interval by kinds of clusters against clusters drawn one by one",
            seconds["plain"] / seconds["kinds"],
            seen=f"{1e3 * seconds['plain']:.1f} ms against {1e3 * seconds['kinds']:.2f} ms",
        ),
    )


if __name__ == "__main__":
    main()
