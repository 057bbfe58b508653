"""What each command does, between the command line and the pure functions: find, check, call, show."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_evalsuite import view
from kd_evalsuite.config import EvalParams
from kd_evalsuite.data import TaskData, load_all
from kd_evalsuite.finding import use_threads
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Answerer
from kd_evalsuite.predictions import MANIFEST, differences, read_manifest, read_predictions
from kd_evalsuite.records import Manifest, ModelRef

if TYPE_CHECKING:
    from kd_evalsuite.tracking import Model


def find_best(scores: Path) -> "Model":
    """The verified folder of the model with the highest Average in `scores`."""
    from kd_evalsuite import tracking
    from kd_evalsuite.best import best_of

    ref, average = best_of(scores)
    view.err.print(f"best of {view.plain(str(scores))}: {view.plain(ref.name)}, average {average.value:.2f}")
    return tracking.resolve({"schema": "kd-ref/1", **ref.model_dump()})


# ---------------------------------------------------------------- predict


def predict(
    params: EvalParams, model: "Model", out: Path, *, blind: bool, replace: bool, dry_run: bool = False
) -> None:
    """Check everything, then predict what is missing in `out`."""
    from kd_evalsuite.predict import manifest_of
    from kd_evalsuite.predict import predict as ask

    _check_vlm(model)
    tasks = load_all(params.data, params.keys, limit=params.limit)
    ref = ModelRef(kind=model.kind, name=model.name, sha256=model.sha256)
    manifest = manifest_of(ref, tasks, protocol=params.protocol, blind=blind, limit=params.limit)
    if dry_run:
        _plan(tasks, manifest, out)
        return

    def load() -> Answerer:
        with view.err.status(f"loading {view.plain(model.name)}"):
            from transformers.utils import logging

            from kd_evalsuite.models.vlm import TransformersVlm

            logging.disable_progress_bar()
            use_threads(params.threads)
            return TransformersVlm(model.path, device=params.device)

    with view.bars() as progress:
        n = ask(
            load,
            tasks,
            manifest,
            out,
            batch_size=params.batch_size,
            progress=lambda name, total, done: view.one_bar(progress, name, total, done),
            replace=replace,
        )
    view.err.print(f"{n} items predicted in {view.plain(str(out))}")


def _check_vlm(model: "Model") -> None:
    if not (model.path / "config.json").is_file():
        raise DataError(
            f"{model.name}: expected a transformers image-text checkpoint, found no config.json in {model.path}. "
            "For an open_clip encoder use evalsuite zeroshot."
        )


def _plan(tasks: Sequence[TaskData], manifest: Manifest, out: Path) -> None:
    found = read_manifest(out) if (out / MANIFEST).is_file() else None
    other = differences(found, manifest) if found else ""
    name = view.plain(manifest.model.name)
    view.out.print(
        f"would predict with {name}{' without images' if manifest.blind else ''} into {view.plain(str(out))}"
    )
    if other:
        view.out.print(f"  there are predictions of something else ({view.plain(other)}): --replace would be needed")
    for task in tasks:
        done = 0 if other else len(read_predictions(out / f"{task.key}.jsonl"))
        view.out.print(f"  {task.key}: {len(task.items)} items, {done} done, data {task.sha256[:8]}")


# ---------------------------------------------------------------- publish


def publish(folders: Sequence[Path], *, dry_run: bool = False) -> None:
    """Record every folder of scores as an MLflow run."""
    from kd_evalsuite.publish import publish_folder, run_name, score_folders
    from kd_evalsuite.score import read_scores

    for folder in score_folders(folders):
        name = view.plain(run_name(read_scores(folder)))
        if dry_run:
            view.out.print(f"would publish {name} from {view.plain(str(folder))}")
        else:
            view.out.print(f"{name}: run {publish_folder(folder)}")
