"""The SQLite database of runs and models at the root of a project, and the artifacts beside it.

This file is the same in every package; its source is contract/shared/database.py.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

ARTIFACTS = "mlruns"  # folder beside the database: one folder an experiment
PLACES = (  # where MLflow keeps absolute addresses of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def artifacts_of(file: Path, experiment: str) -> str:
    """The address of an experiment's artifacts, beside its database."""
    return (file.parent / ARTIFACTS / experiment).as_uri()


def make_database(mlflow: Any, file: Path) -> None:
    """Make the tables under another name: a process that is ended meanwhile leaves no half-made database."""
    part = file.with_name(f"{file.name}.part")
    for left in (part, part.with_name(f"{part.name}-journal")):
        left.unlink(missing_ok=True)
    mlflow.MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
    with contextlib.closing(sqlite3.connect(part)) as database:
        database.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait for each other
    part.replace(file)


def follow(file: Path) -> None:
    """Where database and artifacts were moved or copied together, make it name them at their new place.

    Only experiments whose artifacts lay beside the database then and lie beside it now are touched.
    """
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
        for name, place in database.execute("SELECT name, artifact_location FROM experiments").fetchall():
            here = artifacts_of(file, name)
            beside = place and place.endswith(f"/{ARTIFACTS}/{name}")
            if not beside or place == here or not (file.parent / ARTIFACTS / name).is_dir():
                continue
            for table, column in PLACES:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column} || '/', 1, ?) = ?",
                    (here, len(place) + 1, len(place) + 1, f"{place}/"),
                )
        database.commit()
