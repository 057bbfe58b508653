"""What a finished study is: digests of all that depends on its parameters alone, and its runs and models in MLflow."""

import hashlib
import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

RESULTS = (  # not models' journals (times), predictions (seconds) and pages (run ids)
    *("refs/*/*.json", "caches/*/*.npy", "data/world/**/*.parquet", "data/world/**/*.tar", "data/world/**/*.jpg"),
    *("out/eval/*/items.jsonl", "out/eval/*/scores.json", "out/blind/eval/*/scores.json"),
    *("out/zeroshot/*/items.jsonl", "out/zeroshot/*/scores.json", "out/cka/*.json"),
    *("out/report/metrics.json", "out/report/answer.json", "out/report/results.csv", "out/report/tables/*.csv"),
)


def digests(project: Path) -> dict[str, str]:
    """The sha256 of each result, by path."""
    files = sorted({file for pattern in RESULTS for file in project.glob(pattern)})
    return {str(f.relative_to(project)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def models(project: Path) -> Counter[tuple[str, str]]:
    """(name, sha256) of every registered version, counted."""
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        tags = "SELECT name, value FROM model_version_tags WHERE key = 'sha256'"
        return Counter(database.execute(tags).fetchall())


def referred(project: Path) -> set[tuple[str, str]]:
    """(name, sha256) of every reference."""
    refs = [json.loads(file.read_text()) for file in project.glob("refs/*/*.json")]
    return {(ref["name"], ref["sha256"]) for ref in refs}


def doubled_metrics(project: Path) -> list[tuple[str, str, int]]:
    """(run, metric, step) of every value that stands in MLflow more than once."""
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        query = "SELECT run_uuid, key, step FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
        return database.execute(query).fetchall()


def leftovers(project: Path) -> list[str]:
    """What killed processes left half written among the results."""
    found = [p for top in ("refs", "out", "models", "data") for p in project.glob(f"{top}/**/*.part")]
    return [str(p.relative_to(project)) for p in found if "run.lock" not in p.name]
