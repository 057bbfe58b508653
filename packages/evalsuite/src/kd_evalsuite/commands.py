"""What each command does, between the command line and the pure functions: find, check, call, show."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kd_evalsuite import view
from kd_evalsuite.config import SECTION, EvalParams
from kd_evalsuite.data import TaskData, load_all
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Answerer
from kd_evalsuite.params import load_section
from kd_evalsuite.predictions import MANIFEST, differences, read_manifest, read_predictions
from kd_evalsuite.records import Manifest, ModelRef, Scores
from kd_evalsuite.tasks import PROTOCOLS, TASKS, prompts_of, task_named

if TYPE_CHECKING:
    from kd_evalsuite.tracking import Model


def load_params(path: Path, overrides: Sequence[str]) -> EvalParams:
    """The section `evalsuite` of a parameter file."""
    return load_section(path, SECTION, EvalParams, overrides)


def find_model(model: str) -> "Model":
    """The verified folder of a model."""
    from kd_evalsuite import tracking

    return tracking.resolve(model)


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
            _use_threads(params.threads)
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


def _use_threads(n: int | None) -> None:
    import torch

    if n is not None:
        torch.set_num_threads(n)


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


# ---------------------------------------------------------------- score


def pairs(predictions: Sequence[Path], out: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(predictions, scores) folders; a folder of folders of predictions stands for all of them.

    Raises:
        DataError: If there are not as many outs as predictions, or a folder holds no predictions.
    """
    if len(predictions) != len(out):
        raise DataError(f"Expected one --out for each --predictions, got {len(out)} for {len(predictions)}.")
    found = []
    for folder, target in zip(predictions, out, strict=True):
        if (folder / MANIFEST).is_file():
            found.append((folder, target))
            continue
        below = sorted(p.parent for p in folder.glob(f"*/{MANIFEST}"))
        if not below:
            raise DataError(f"Expected predictions ({MANIFEST}) in {folder} or in folders below it, found none.")
        found.extend((p, target / p.name) for p in below)
    return found


def score(params: EvalParams, folders: Sequence[tuple[Path, Path]], *, dry_run: bool = False) -> list[Scores]:
    """Score each folder; the data of a task are read once. Under the protocol of the predictions."""
    from kd_evalsuite.score import score_folder

    manifests = [read_manifest(folder) for folder, _ in folders]
    if unknown := {m.protocol for m in manifests} - set(PROTOCOLS):
        raise DataError(f"Predictions under unknown protocols: {', '.join(unknown)}.")
    loaded: dict[int | None, dict[str, TaskData]] = {}
    for manifest in manifests:
        have = loaded.setdefault(manifest.limit, {})
        new = [key for key in manifest.tasks if key not in have]
        have |= {d.key: d for d in load_all(params.data, new, limit=manifest.limit, pictures=False)}
    results = []
    for (folder, target), manifest in zip(folders, manifests, strict=True):
        if dry_run:
            view.out.print(f"would score {view.plain(str(folder))} ({len(manifest.tasks)} tasks) into {target}")
            continue
        results.append(score_folder(folder, target, list(loaded[manifest.limit].values())))
        view.out.print(view.score_table(results[-1]))
    return results


# ---------------------------------------------------------------- zero-shot


def zeroshot(params: EvalParams, models: Sequence[str], out: Path, *, dry_run: bool = False) -> None:
    """Classify with each encoder; scores go to `out/<name>/`."""
    from kd_evalsuite.score import write_scores
    from kd_evalsuite.zeroshot.config import check_config
    from kd_evalsuite.zeroshot.shards import open_set

    given = params.zeroshot
    data = open_set(given.data)
    found = [find_model(model) for model in models]
    if repeated := {m.name for m in found if sum(n.name == m.name for n in found) > 1}:
        raise DataError(f"Models of one name would share a folder: {', '.join(sorted(repeated))}.")
    for model in found:
        check_config(model.path)
        if dry_run:
            view.out.print(f"would classify {len(data.names)} classes with {model.name} into {out / model.name}")
    if dry_run:
        return
    from kd_evalsuite.zeroshot.classify import Encoder, classify

    _use_threads(params.threads)
    with view.bars() as progress:
        for model in found:
            with view.one_bar(progress, model.name, None) as advance:
                encoder = Encoder(model.path, params.device)
                scores, rows = classify(encoder, data, batch_size=given.batch_size, limit=given.limit, advance=advance)
            ref = ModelRef(kind=model.kind, name=model.name, sha256=model.sha256)
            result = Scores(schema="kd-scores/1", model=ref, blind=False, scores=scores)
            write_scores(out / model.name, result, rows)
            view.out.print(view.score_table(result))


# ---------------------------------------------------------------- look


def show_tasks() -> None:
    """The table of benchmarks."""
    from rich import box
    from rich.table import Table

    table = Table("task", "group", "public source", "items", "metrics, the main one first", box=box.SIMPLE_HEAD)
    for task in TASKS.values():
        names = {name: ", ".join(m.name for m in metrics) for name, metrics in task.metrics.items()}
        shown = "; ".join(f"{protocol}: {metrics}" for protocol, metrics in names.items())
        table.add_row(task.key, task.group, task.source, f"{task.size}", shown)
    view.out.print(table)


def show_item(params: EvalParams, key: str, item_id: str | None) -> None:
    """One item as the model sees it."""
    task = task_named(key)
    (data,) = load_all(params.data, [key])
    found = next((i for i in data.items if item_id in (None, i.id)), None)
    if found is None:
        raise DataError(f"{key}: expected an item {item_id!r}, found none; the first is {data.items[0].id!r}.")
    prompt = task.prompts[prompts_of(params.protocol)](found)
    view.out.print(f"[bold]{key}[/bold] {view.plain(task.source)}: {len(data.items)} items, data {data.sha256[:8]}")
    view.out.print(f"item {view.plain(found.id)}, cluster {view.plain(found.cluster or 'its picture')}")
    view.out.print(view.plain(prompt.marked), style="cyan", soft_wrap=True)
    view.out.print(f"gold: {view.plain(' | '.join(found.gold))}")
    view.out.print(f"metric: {task.metrics[params.protocol][0].name}, at most {task.max_new_tokens} new tokens")


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
