"""Runs, metrics and models in MLflow, and how they are found again. The only module that imports mlflow.

This file is the same in every package; its source is contract/shared/tracking.py.
"""

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import StringConstraints
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from .commit import provenance
from .database import artifacts_of, follow, make_database
from .reading import checked, read_json

JOURNAL = "journal.jsonl"
NOT_DIGESTED = {JOURNAL, "MLmodel", "registered_model_meta"}  # the last two are MLflow's own
ROOT_MARK = ".dvc"
COMPLETE = "kd.complete"  # tag of a run whose parameters and inputs are all there


class Ref(TypedDict):
    """What stands in `refs/<name>.json`; its values go into queries, so they hold no quotes and no blanks."""

    schema: Literal["kd-ref/1"]
    kind: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_-]+$")]
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class IntegrityError(RuntimeError):
    """A model's files are not the ones that its reference names."""


@dataclass(frozen=True)
class Model:
    """A model folder on disk whose digest has been verified."""

    path: Path
    kind: str
    name: str
    sha256: str

    @property
    def ref(self) -> dict[str, str]:
        """What stands in `refs/<name>.json`."""
        return {"schema": "kd-ref/1", "kind": self.kind, "name": self.name, "sha256": self.sha256}


def digest(folder: Path) -> str:
    """The sha256 over names and contents of the files of a model folder (contract/README.md, "Model folders")."""
    lines = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        path = file.relative_to(folder).as_posix()
        if path not in NOT_DIGESTED:
            with file.open("rb") as stream:
                lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {path}\n")
    if not lines:
        raise FileNotFoundError(f"Expected a model folder at {folder}, found no file in it.")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# ---------------------------------------------------------------- finding models


def resolve(model: str | Path | Mapping[str, str]) -> Model:
    """The verified folder of a reference file, a reference, `models:/name[/version|@alias]` or a plain folder.

    Raises:
        FileNotFoundError: If there is no such file, folder or registered model.
        IntegrityError: If the files are not the ones that the reference or the registry names.
    """
    if isinstance(model, Mapping):
        return _from_ref(checked(Ref, dict(model), f"the reference to {model.get('name')!r:.80}"))
    if str(model).startswith("models:/"):
        return _from_uri(str(model))
    path = Path(model)
    if path.is_file():
        return _from_ref(read_ref(path))
    if path.is_dir():
        kind = "encoder" if (path / "open_clip_config.json").exists() else "transformers"
        return Model(path, kind, path.name, digest(path))
    raise FileNotFoundError(f"Expected a reference file, models:/name or a model folder, found nothing at {model}.")


def read_ref(path: Path) -> Ref:
    """The reference in a file; FileError (a ValueError) where it holds something else."""
    return checked(Ref, read_json(path), str(path))


def _from_ref(ref: Ref) -> Model:
    version = version_of(ref["name"], ref["sha256"])
    if version is None:
        raise FileNotFoundError(
            f"{uri()} has no version of {ref['name']} with sha256 {ref['sha256'][:12]}; register it (dvc repro does)."
        )
    return _verified(version, ref["kind"])


def _from_uri(model: str) -> Model:
    name, _, number = model.removeprefix("models:/").partition("/")
    name, _, alias = name.partition("@")
    try:
        version = (
            client().get_model_version(name, number)
            if number
            else client().get_model_version_by_alias(name, alias or "champion")
        )
    except import_mlflow().exceptions.MlflowException as error:
        raise FileNotFoundError(f"{uri()} has no {model}: {error}") from None
    return _verified(version, version.tags.get("kd.kind", "unknown"))


def files_of(version: Any) -> Path:
    """The folder of a registered version, fetched where it is elsewhere; not verified."""
    return Path(import_mlflow().artifacts.download_artifacts(f"models:/{version.name}/{version.version}"))


def _verified(version: Any, kind: str) -> Model:
    path = files_of(version)
    found, expected = digest(path), version.tags.get("sha256")
    if found != expected:
        raise IntegrityError(
            f"{version.name} version {version.version}: expected sha256 {expected}, found {found} in {path}."
        )
    return Model(path, kind, version.name, found)


def version_of(name: str, sha256: str) -> Any:
    found = client().search_model_versions(f"name = '{name}' AND tags.sha256 = '{sha256}'", max_results=1)
    return found[0] if found else None


# ---------------------------------------------------------------- metrics of finished work


def publish(
    experiment: str,
    key: str,
    name: str,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str] | None = None,
    model_sha256: str | None = None,
    datasets: Sequence[Mapping[str, str]] = (),
    artifacts: Sequence[Path] = (),
    measured_on: Mapping[str, str] | None = None,
) -> str:
    """Record finished work as a run, once: a run with the same `key` is returned as it is.

    Args:
        key: What makes this work the same as other work, usually a digest of its output.
        metrics: Finite values; also linked to the registered model, so that models can be compared by them.
        model_sha256: Digest of that model.
        measured_on: The name of the data set of a metric, by metric; MLflow shows such metrics together.
    """
    start = {
        "key": key,
        "time": now_ms(),
        "experiment": experiment,
        "name": name,
        "params": {k: str(v) for k, v in params.items()},
        "tags": {**provenance(), **(tags or {})},
        "datasets": [dict(d) for d in datasets],
        "models": [],
    }
    run_id = run_of(start)
    if client().get_run(run_id).info.status == "FINISHED":
        return run_id
    by_name = {d["name"]: d for d in datasets}
    measured = {metric: by_name[name] for metric, name in (measured_on or {}).items() if name in by_name}
    log_metrics(run_id, [{"step": 0, "time": now_ms(), "values": metrics}], _model_id(model_sha256), measured)
    for artifact in artifacts:
        client().log_artifact(run_id, str(artifact))
    client().set_terminated(run_id, "FINISHED")
    return run_id


def _model_id(sha256: str | None) -> str | None:
    found = client().search_model_versions(f"tags.sha256 = '{sha256}'", max_results=1) if sha256 else []
    source = str(found[0].source) if found else ""
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


def log_metrics(
    run_id: str,
    events: Iterable[Mapping[str, Any]],
    model_id: str | None = None,
    measured_on: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    entity = import_mlflow().entities.Metric

    def data(key: str) -> dict[str, str]:
        found = (measured_on or {}).get(key)
        return {"dataset_name": found["name"], "dataset_digest": found["digest"][:32]} if found else {}

    metrics = [
        entity(key, value, event["time"], event["step"], model_id=model_id, run_id=run_id, **data(key))
        for event in events
        for key, value in event["values"].items()
    ]
    for i in range(0, len(metrics), 1000):
        client().log_batch(run_id, metrics=metrics[i : i + 1000])


def run_of(start: Mapping[str, Any]) -> str:
    """The run with this key, made if there is none."""
    experiment_id = _experiment(start["experiment"])
    found = client().search_runs([experiment_id], f"tags.`kd.key` = '{start['key']}'", max_results=1)
    if found and COMPLETE in found[0].data.tags:
        return str(found[0].info.run_id)
    entities = import_mlflow().entities
    tags = {**start["tags"], "kd.key": start["key"]}
    run = (
        found[0]  # whoever made it did not come to the end of this function
        if found
        else client().create_run(experiment_id, start_time=start["time"], tags=tags, run_name=start["name"])
    )
    run_id = run.info.run_id
    client().log_batch(run_id, params=[entities.Param(k, v) for k, v in start["params"].items()])
    datasets = [
        entities.DatasetInput(
            entities.Dataset(d["name"], d["digest"][:32], "local", json.dumps({"uri": d["path"]})),
            [entities.InputTag("mlflow.data.context", "input")],
        )
        for d in start["datasets"]
    ]
    model_ids = [_model_id(m["sha256"]) for m in start["models"]]
    models = [entities.LoggedModelInput(i) for i in model_ids if i]
    if datasets or models:
        client().log_inputs(run_id, datasets=datasets, models=models)
    client().set_tag(run_id, COMPLETE, "true")
    return str(run_id)


# ---------------------------------------------------------------- the server


def uri() -> str:
    """`MLFLOW_TRACKING_URI`, or a database at the root of the project: where `.dvc` stands, else the working folder."""
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    here = Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()
    root = next((p for p in (here, *here.parents) if (p / ROOT_MARK).is_dir()), here)
    return f"sqlite:///{root / 'mlflow.db'}"


@functools.cache
def client() -> Any:
    """A client of the tracking server. The tables of a SQLite database are made by one process at a time."""
    mlflow = import_mlflow()
    address = uri()
    mlflow.set_tracking_uri(address)
    if not address.startswith("sqlite:///"):
        return mlflow.MlflowClient(address)
    from filelock import FileLock

    file = Path(address.removeprefix("sqlite:///"))
    with FileLock(f"{file}.lock"):
        if not file.exists():
            make_database(import_mlflow(), file)
        made = mlflow.MlflowClient(address)  # migrates the tables where they are of an older MLflow
        made.search_experiments(max_results=1)
        follow(file)
    return made


@functools.cache
def _experiment(name: str) -> str:
    found = client().get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    address = uri()
    local = address.startswith("sqlite:///")
    place = artifacts_of(Path(address.removeprefix("sqlite:///")), name) if local else None
    try:
        return str(client().create_experiment(name, artifact_location=place))
    except import_mlflow().exceptions.MlflowException:  # somebody else was faster
        return str(client().get_experiment_by_name(name).experiment_id)


def import_mlflow() -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    import mlflow

    return mlflow


def now_ms() -> int:
    return time.time_ns() // 1_000_000
