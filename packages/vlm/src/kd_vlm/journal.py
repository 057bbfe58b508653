"""The journal of a training: one JSON line an event, next to the weights.

It is enough to rebuild the MLflow run and the registered model when the tracking database is lost.
This file is the same in every package that trains; its source is contract/shared/journal.py.
"""

import json
import shutil
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .tracking import JOURNAL, Model, client, digest, import_mlflow, log_metrics, now_ms, provenance, run_of, version_of

MIRROR_SECONDS = 5.0


class Journal:
    """The record of one training: a file first, mirrored to MLflow every few seconds."""

    def __init__(self, path: Path, start: dict[str, Any]) -> None:
        self.path, self.start = path, start
        self._pending: list[dict[str, Any]] = []
        self._mirrored = time.monotonic()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        datasets: Sequence[Mapping[str, str]] = (),
        models: Sequence[Mapping[str, str]] = (),
        resume_step: int | None = None,
    ) -> "Journal":
        """Start a journal at `path`, or go on with the one that stands there.

        Args:
            path: The journal file.
            experiment: MLflow experiment.
            name: Name of the run.
            params: Flat; the same keys for every run of an experiment, so that runs can be compared.
            tags: Added to where the code came from (git commit, dirty flag, DVC stage).
            datasets: `{"name", "digest", "path"}` of what is trained on.
            models: References of the models that go in.
            resume_step: Go on after this step with the journal that stands there, if any; later events are dropped.
                None starts anew.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume_step is not None and path.exists():
            events = read_journal(path)
            kept = [
                e for e in events if e["event"] == "start" or (e["event"] == "metrics" and e["step"] <= resume_step)
            ]
            path.write_text("".join(json.dumps(e) + "\n" for e in kept))
            return cls(path, kept[0])
        start = {
            "event": "start",
            "schema": "kd-journal/1",
            "key": uuid.uuid4().hex,
            "time": now_ms(),
            "experiment": experiment,
            "name": name,
            "params": {k: str(v) for k, v in params.items()},
            "tags": {**provenance(), **(tags or {})},
            "datasets": [dict(d) for d in datasets],
            "models": [dict(m) for m in models],
        }
        path.write_text(json.dumps(start) + "\n")
        return cls(path, start)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` at `step`."""
        event = {"event": "metrics", "step": step, "time": now_ms(), "values": {k: float(v) for k, v in values.items()}}
        self._append(event)
        self._pending.append(event)
        if time.monotonic() - self._mirrored > MIRROR_SECONDS:
            self._mirror()

    def finish(self, *, kind: str, name: str, tags: Mapping[str, str]) -> None:
        """Record that the folder which holds this journal is the model `name`; `tags` describe it."""
        self._append({"event": "model", "kind": kind, "name": name, "tags": {k: str(v) for k, v in tags.items()}})
        self._append({"event": "end", "status": "FINISHED", "time": now_ms()})
        self._mirror()

    def _append(self, event: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()

    def _mirror(self) -> None:
        run_id = run_of(self.start)
        log_metrics(run_id, self._pending)
        self._pending, self._mirrored = [], time.monotonic()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The events of a journal; a last line that a kill cut short is dropped."""
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    if not events or events[0].get("schema") != "kd-journal/1":
        raise ValueError(f"{path} is not a journal of schema kd-journal/1.")
    return events


def register(folder: Path, ref_path: Path | None = None) -> Model:
    """Make MLflow hold the run and the model of a training's output folder, and write the reference."""
    events = read_journal(folder / JOURNAL)
    declared = next((e for e in events if e["event"] == "model"), None)
    if declared is None:
        raise ValueError(f"{folder / JOURNAL} does not say which model this is: the training did not end.")
    run_id = run_of(events[0])
    if client().get_run(run_id).info.status != "FINISHED":
        log_metrics(run_id, _not_logged(run_id, [e for e in events if e["event"] == "metrics"]))
        client().set_terminated(run_id, "FINISHED", end_time=events[-1].get("time"))
    model = Model(folder, declared["kind"], declared["name"], digest(folder))
    if version_of(model.name, model.sha256) is None:
        _register_version(model, declared["tags"], run_id, events[0]["params"])
    if ref_path:
        ref_path.parent.mkdir(parents=True, exist_ok=True)
        ref_path.write_text(json.dumps(model.ref, indent=1) + "\n")
    return model


def _not_logged(run_id: str, events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    logged: dict[str, set[int]] = {}
    for key in {k for e in events for k in e["values"]}:
        logged[key] = {m.step for m in client().get_metric_history(run_id, key)}
    lacking: list[Mapping[str, Any]] = []
    for event in events:
        values = {k: v for k, v in event["values"].items() if event["step"] not in logged[k]}
        if values:
            lacking.append({**event, "values": values})
    return lacking


def _register_version(model: Model, tags: Mapping[str, str], run_id: str, params: Mapping[str, str]) -> None:
    import_mlflow().set_experiment(experiment_id=client().get_run(run_id).info.experiment_id)
    tags = {**tags, "kd.kind": model.kind, "sha256": model.sha256}
    info = import_mlflow().models.Model.log(
        artifact_path=None,
        name=model.name,
        flavor=sys.modules[__name__],
        registered_model_name=model.name,
        run_id=run_id,
        params=dict(params),
        tags=tags,
        model_type=model.kind,
        folder=model.path,
        description_tags=tags,
    )
    version = str(info.registered_model_version)
    for key, value in tags.items():
        client().set_model_version_tag(model.name, version, key, value)
    client().set_registered_model_alias(model.name, "candidate", version)
    if "champion" not in client().get_registered_model(model.name).aliases:
        client().set_registered_model_alias(model.name, "champion", version)


def save_model(path: str, mlflow_model: Any, folder: Path, description_tags: Mapping[str, str]) -> None:
    """MLflow's hook for a custom flavor: copy the folder as it is, add no code."""
    shutil.copytree(folder, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(JOURNAL))
    mlflow_model.add_flavor("kd", **description_tags)
    mlflow_model.save(str(Path(path) / "MLmodel"))
