"""The journal of a training: one JSON line an event, next to the weights, on the disk before the training goes on.

The file is the record; MLflow is sent a copy by a thread, so that a server that is down, slow or locked costs the
training nothing. The file is enough to rebuild the MLflow run and the registered model.
This file is the same in every package that trains; its source is contract/shared/journal.py.
"""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .commit import provenance
from .durable import write_whole
from .shipping import Shipper, read_journal, send
from .tracking import (
    JOURNAL,
    IntegrityError,
    Model,
    client,
    digest,
    files_of,
    import_mlflow,
    now_ms,
    run_of,
    version_of,
)

FINISH_SECONDS = 5.0  # that the end of a training waits for MLflow

__all__ = ["Journal", "read_journal", "register", "save_model"]


class Journal:
    """The record of one training: a file first, sent to MLflow every few seconds."""

    def __init__(self, path: Path, start: dict[str, Any]) -> None:
        self.path, self.start = path, start
        self._shipper = Shipper(path)

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
                e
                for e in events
                if e["event"] == "start" or (e["event"] in ("metrics", "table") and e["step"] <= resume_step)
            ]
            write_whole(path, "".join(json.dumps(e) + "\n" for e in kept).encode())
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
        write_whole(path, (json.dumps(start) + "\n").encode())
        return cls(path, start)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` at `step`."""
        values = {k: float(v) for k, v in values.items()}
        self._append({"event": "metrics", "step": step, "time": now_ms(), "values": values})
        self._shipper.wake()

    def table(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record a table at `step`: rows of JSON values under equal keys. MLflow shows it as `<name>/<step>.json`."""
        self._append({"event": "table", "step": step, "name": name, "rows": [dict(row) for row in rows]})
        self._shipper.wake()

    def copy_with_model(self, path: Path, *, kind: str, name: str, tags: Mapping[str, str]) -> None:
        """Write the journal so far to `path`, for a folder that is the model `name` before the training ends."""
        shutil.copy(self.path, path)
        _append(path, _declared(kind, name, tags, path.parent))

    def finish(self, *, kind: str, name: str, tags: Mapping[str, str], folder: Path | None = None) -> None:
        """Record that the folder which holds this journal is the model `name`; `tags` describe it.

        Args:
            folder: Where the files of the model are whole by now; `register` then refuses others in their place.
        """
        self._append(_declared(kind, name, tags, folder))
        self._append({"event": "end", "status": "FINISHED", "time": now_ms()})
        self.close()

    def close(self, seconds: float = FINISH_SECONDS) -> None:
        """Write no more; wait at most `seconds` for MLflow. What it did not take, `register` or `sync` sends."""
        self._shipper.finish(seconds)

    def _append(self, event: Mapping[str, Any]) -> None:
        _append(self.path, event)


def _declared(kind: str, name: str, tags: Mapping[str, str], folder: Path | None) -> dict[str, Any]:
    event = {"event": "model", "kind": kind, "name": name, "tags": {k: str(v) for k, v in tags.items()}}
    return event | ({"sha256": digest(folder)} if folder else {})


def _append(path: Path, event: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(event) + "\n")
        file.flush()
        os.fsync(file.fileno())


def register(folder: Path, ref_path: Path | None = None) -> Model:
    """Make MLflow hold the run and the model of a training's output folder, and write the reference.

    Raises:
        IntegrityError: If the files are not those that the training wrote, as after damage in a cache.
        ValueError: If the training did not end.
    """
    events = read_journal(folder / JOURNAL)
    declared = next((e for e in events if e["event"] == "model"), None)
    if declared is None:
        raise ValueError(f"{folder / JOURNAL} does not say which model this is: the training did not end.")
    model = Model(folder, declared["kind"], declared["name"], digest(folder))
    if declared.get("sha256", model.sha256) != model.sha256:
        raise IntegrityError(
            f"{folder}: its training wrote files of sha256 {declared['sha256'][:12]}, found {model.sha256[:12]}. "
            "They were damaged or changed since; remove the folder and run its training again."
        )
    send(folder / JOURNAL)
    run_id = run_of(events[0])
    if version_of(model.name, model.sha256) is None:
        _register_version(model, declared["tags"], run_id, events[0]["params"])
    if ref_path:
        ref_path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(ref_path, (json.dumps(model.ref, indent=1) + "\n").encode())
    return model


def _register_version(model: Model, tags: Mapping[str, str], run_id: str, params: Mapping[str, str]) -> None:
    """Make a version of `model`, or finish one that a kill left half made; the tag that it is found by comes last."""
    tags = {**tags, "kd.kind": model.kind}
    version = _half_made(model, run_id) or _log_version(model, tags, run_id, params)
    for key, value in tags.items():
        client().set_model_version_tag(model.name, version, key, value)
    client().set_registered_model_alias(model.name, "candidate", version)
    if "champion" not in client().get_registered_model(model.name).aliases:
        client().set_registered_model_alias(model.name, "champion", version)
    client().set_model_version_tag(model.name, version, "sha256", model.sha256)


def _half_made(model: Model, run_id: str) -> str | None:
    """The version of `model` from this run that nobody has finished, if there is one."""
    for version in client().search_model_versions(f"name = '{model.name}'"):
        if version.run_id == run_id and "sha256" not in version.tags and digest(files_of(version)) == model.sha256:
            return str(version.version)
    return None


def _log_version(model: Model, tags: Mapping[str, str], run_id: str, params: Mapping[str, str]) -> str:
    import_mlflow().set_experiment(experiment_id=client().get_run(run_id).info.experiment_id)
    info = import_mlflow().models.Model.log(
        artifact_path=None,
        name=model.name,
        flavor=sys.modules[__name__],
        registered_model_name=model.name,
        run_id=run_id,
        params=dict(params),
        tags=tags,  # MLflow puts them on the version too
        model_type=model.kind,
        folder=model.path,
        description_tags={**tags, "sha256": model.sha256},
    )
    return str(info.registered_model_version)


def save_model(path: str, mlflow_model: Any, folder: Path, description_tags: Mapping[str, str]) -> None:
    """MLflow's hook for a custom flavor: copy the folder as it is, add no code."""
    shutil.copytree(folder, path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(JOURNAL))
    mlflow_model.add_flavor("kd", **description_tags)
    mlflow_model.save(str(Path(path) / "MLmodel"))
