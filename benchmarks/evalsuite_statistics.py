"""The paired bootstrap over sixteen benchmarks at their real sizes, against one resample at a time.

    OMP_NUM_THREADS=1 python benchmarks/evalsuite_statistics.py

Two made-up models answer as many items as the public benchmarks have, in as many clusters (images, pairs, rotation
groups); all clusters are resampled 10,000 times for each benchmark, paired, and the Average with them. The plain side
draws the clusters of one resample at a time, as a loop in numpy, for fewer resamples; its time is scaled up. Medians of
the two must agree. Also timed: the whole of `compare` from files, with sign flips, Holm and flips counted.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from figures import Figure, show
from kd_evalsuite import resample
from kd_evalsuite.compare import How, compare
from kd_evalsuite.records import ModelRef, Score, Scores
from kd_evalsuite.results import read_results
from kd_evalsuite.score import ITEMS, SCORES
from kd_evalsuite.stats import clustered_stderr
from kd_evalsuite.tasks import TASKS

CLUSTERS = {  # images, pairs or groups where items share them; otherwise every item is its own
    "mme_perception": 1057, "mmbench_en": 1164, "seedbench_image": 5000, "gqa": 398, "chartqa": 1509, "textvqa": 3166,
    "docvqa": 1286, "mmvp": 150, "ai2d": 1400,
}  # fmt: skip
GRADED = {"textvqa": 10, "docvqa": 10**6}  # steps of a score


def made_up(seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(scores of two models, cluster of each item) of each benchmark."""
    rng = np.random.default_rng(seed)
    found = {}
    for key, task in TASKS.items():
        n = task.size
        clusters = np.arange(n) % CLUSTERS.get(key, n)
        level = np.clip(rng.normal(0.4, 0.2, clusters.max() + 1)[clusters], 0, 1)
        steps = GRADED.get(key)
        if steps:
            scores = np.round(np.clip(level[:, None] + rng.normal(0, 0.3, (n, 2)), 0, 1) * steps) / steps
        else:
            scores = (rng.random((n, 2)) < level[:, None]).astype(float)
        if key == "mmvp":
            scores = np.tile(scores[:150], (2, 1))
        found[key] = scores, clusters
    return found


def strata(data: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[tuple[resample.Stratum, ...]]:
    """The paired differences by cluster."""
    return [
        resample.strata_of(scores[:, 1] - scores[:, 0], clusters, np.zeros(len(clusters), dtype=np.int64))
        for scores, clusters in data.values()
    ]


def ours(parts: list[tuple[resample.Stratum, ...]], n: int) -> np.ndarray:
    """The Average's draws."""
    return np.mean([resample.bootstrap(part, np.random.default_rng([1, k]), n) for k, part in enumerate(parts)], axis=0)


def plain(parts: list[tuple[resample.Stratum, ...]], n: int) -> np.ndarray:
    """The same, one resample at a time."""
    rng, draws = np.random.default_rng(2), np.empty(n)
    for i in range(n):
        values = []
        for (part,) in parts:
            drawn = rng.integers(len(part.points), size=len(part.points))
            values.append(part.points[drawn].sum() / part.weight[drawn].sum())
        draws[i] = np.mean(values)
    return draws


def per_item(data: dict[str, tuple[np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    """One resample at a time over items gathered by cluster, as a script without cluster sums does it."""
    rng, draws, members = np.random.default_rng(3), np.empty(n), {}
    for key, (_, clusters) in data.items():
        order = np.argsort(clusters, kind="stable")
        members[key] = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    for i in range(n):
        values = []
        for key, (scores, _) in data.items():
            some = members[key]
            rows = np.concatenate([some[c] for c in rng.integers(len(some), size=len(some))])
            values.append((scores[rows, 1] - scores[rows, 0]).mean())
        draws[i] = np.mean(values)
    return draws


def seconds(run: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of this thread, and what was returned."""
    begin = time.thread_time()
    result = run()
    return time.thread_time() - begin, result


def write(root: Path, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[Path]:
    """Two folders of scores."""
    folders = []
    for k, name in enumerate("ab"):
        folder = root / name
        folder.mkdir()
        scores = []
        with (folder / ITEMS).open("w") as stream:
            for key, (values, clusters) in data.items():
                for i, (value, cluster) in enumerate(zip(values[:, k].tolist(), clusters.tolist(), strict=True)):
                    row = {"task": key, "id": str(i), "cluster": str(cluster), "score": value}
                    stream.write(json.dumps(row) + "\n")
                mine = values[:, k]
                scores.append(
                    Score(
                        benchmark=key,
                        benchmark_version="made-up",
                        metric="accuracy",
                        value=float(mine.mean()),
                        best=1.0,
                        stderr=clustered_stderr(mine.tolist(), clusters.tolist()),
                        n=len(mine),
                        n_unparsed=0,
                        top_answer_share=0.3,
                    )
                )
        ref = ModelRef(kind="vlm", name=name, sha256=name * 64)
        whole = Scores(schema="kd-scores/1", model=ref, blind=False, scores=tuple(scores))
        (folder / SCORES).write_text(whole.model_dump_json(by_alias=True))
        folders.append(folder)
    return folders


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    data = made_up(0)
    parts = strata(data)
    items, clusters = sum(len(s) for s, _ in data.values()), sum(len(p.points) for (p,) in parts)
    print(f"{items} items in {clusters} clusters, {len(parts)} benchmarks, {asked.samples} resamples")
    few, fewer = max(20, asked.samples // 20), max(5, asked.samples // 400)
    best = {"ours": np.inf, "plain": np.inf, "items": np.inf}
    for _ in range(asked.repeats):
        spent, draws = seconds(lambda: ours(parts, asked.samples))
        best["ours"] = min(best["ours"], spent)
        spent, loop = seconds(lambda: plain(parts, few))
        best["plain"] = min(best["plain"], spent * asked.samples / few)
        spent, _ = seconds(lambda: per_item(data, fewer))
        best["items"] = min(best["items"], spent * asked.samples / fewer)
    apart = abs(np.median(draws) - np.median(loop)) / (1.25 * np.std(draws) / np.sqrt(few))
    print(f"standard error of the Average: {100 * np.std(draws):.4f} and {100 * np.std(loop):.4f} points; ", end="")
    print(f"medians {apart:.1f} of their standard errors apart")
    with tempfile.TemporaryDirectory() as folder:
        folders = write(Path(folder), data)
        read, results = seconds(lambda: read_results(folders))
        whole, _ = seconds(lambda: compare(results, how=How(samples=asked.samples)))  # type: ignore[arg-type]
    print(f"compare: {read:.2f} s to read two files of {items} items, {whole:.2f} s for everything else")
    bound = sum(min(len(p.points), len(np.unique(p.points))) for (p,) in parts) * asked.samples
    print(f"bound: {bound / 1e6:.0f} million random counts or indices if each kind of cluster is drawn once a resample")
    print(f"over items, one resample at a time: {best['items']:.1f} s")
    show(
        Figure(f"{asked.samples} paired resamples of {len(parts)} benchmarks", float(best["ours"]), "s", at_most=2),
        Figure(
            "the same against one resample at a time",
            float(best["plain"] / best["ours"]),
            seen=f"{best['plain']:.2f} s against {best['ours']:.2f} s",
        ),
        Figure("medians of the two, in their standard errors", float(apart), "", at_most=5),
    )


if __name__ == "__main__":
    main()
