"""What the commands that ask a model do, and publishing: find, check, call, show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_evalsuite import view
from kd_evalsuite.checks import require_ready
from kd_evalsuite.config import EvalParams
from kd_evalsuite.data import TaskData, load_all, place_of
from kd_evalsuite.hub import SOURCE, read_source
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Answerer
from kd_evalsuite.models.find import Found, find, of_files
from kd_evalsuite.predictions import MANIFEST, differences, read_manifest
from kd_evalsuite.records import Manifest
from kd_evalsuite.sharding import IncompleteError, Shard, merge_shards, predicted, shares
from kd_evalsuite.sharding import merge as merge_folders

__all__ = ["find", "find_best", "merge", "predict", "publish", "run", "shard_of"]


def find_best(scores: Path, params: EvalParams) -> Found:
    """The model with the highest Average in `scores`."""
    from kd_evalsuite import tracking
    from kd_evalsuite.best import best_of

    ref, average = best_of(scores)
    view.err.print(f"best of {view.plain(str(scores))}: {view.plain(ref.name)}, average {average.value:.2f}")
    return of_files(tracking.resolve({"schema": "kd-ref/1", **ref.model_dump()}), params)


def shard_of(text: str | None) -> Shard | None:
    """The share that is asked for, or torchrun's."""
    return Shard.parse(text) if text else Shard.of_torchrun()


# ---------------------------------------------------------------- run


def run(
    params: EvalParams,
    model: str,
    out: Path,
    *,
    asked: Mapping[str, Any],
    zeroshot: str | None,
    blind: bool,
    replace: bool,
    shard: Shard | None = None,
    dry_run: bool = False,
) -> None:
    """Predict and score a VLM, or classify with an encoder.

    Args:
        params: What is evaluated and how.
        model: As `--model` names it.
        out: Where the results go.
        asked: The options among the parameters, None where not given; an encoder's limit is not that of questions.
        zeroshot: `zeroshot` for a set with its own names, `imagenet`, or None for benchmarks.
        blind: Without the images.
        replace: Start over where there are predictions of something else.
        shard: Only this share.
        dry_run: Only say what would be done.

    Raises:
        DataError: If the model is not of the kind that the tasks need, or an option means nothing to it.
    """
    from kd_evalsuite import commands_scores, commands_zeroshot

    found = find(model, params)
    if found.encoder:
        if not zeroshot and params.tasks != "all":
            raise DataError(f"{found.ref.name} is an open_clip encoder: expected --tasks zeroshot, got {params.tasks}.")
        commands_zeroshot.refuse_idle(asked, blind=blind, replace=replace, shard=shard is not None)
        changed = {key: asked[key] for key in commands_zeroshot.SHARED if asked.get(key) is not None}
        changed |= {"names": "imagenet", "templates": "imagenet"} if zeroshot == "imagenet" else {}
        given = params.zeroshot.model_copy(update=changed)
        commands_zeroshot.zeroshot(
            given, [found.encoder], out, device=params.device, threads=params.threads, dry_run=dry_run
        )
        return
    if zeroshot:
        raise DataError(f"Zero-shot classification is for open_clip encoders; {found.ref.name} is none.")
    whole = predict(params, found, out, blind=blind, replace=replace, shard=shard, dry_run=dry_run)
    if whole and not dry_run:
        commands_scores.score(params, [(out, out)])


# ---------------------------------------------------------------- predict


def predict(
    params: EvalParams,
    found: Found,
    out: Path,
    *,
    blind: bool,
    replace: bool,
    shard: Shard | None = None,
    dry_run: bool = False,
) -> bool:
    """Check everything, then predict what is missing in `out`.

    Returns:
        Whether `out` now holds all predictions; a share may have to wait for the others.

    Raises:
        IncompleteError: If items failed.
    """
    from kd_evalsuite.predict import check_mode
    from kd_evalsuite.predict import predict as ask

    if found.encoder:
        raise DataError(f"{found.ref.name} is an open_clip encoder; expected a VLM. See evalsuite zeroshot.")
    require_ready(params.data, params.keys, blind=blind, protocol=params.protocol)
    tasks = load_all(params.data, params.keys, limit=params.limit)
    check_mode(tasks, params.mode)
    manifest = _manifest(params, found, tasks, blind=blind)
    if dry_run:
        _plan(tasks, manifest, out, shard)
        return True

    def load() -> Answerer:
        with view.err.status(f"loading {view.plain(found.ref.name)}"):
            return found.load()

    with view.bars() as progress:
        outcome = ask(
            load,
            tasks,
            manifest,
            out,
            batch_size=params.batch_size,
            progress=lambda name, total, done: view.one_bar(progress, name, total, done),
            replace=replace,
            shard=shard,
            say=lambda said: view.err.print(view.plain(said)),
        )
    where = shard.folder(out) if shard else out
    view.err.print(f"{outcome.asked - len(outcome.failed)} items predicted in {view.plain(str(where))}")
    if outcome.failed:
        raise IncompleteError(_what_failed(outcome.failed))
    if params.verify_batch:
        _verify(outcome.model or load(), tasks, manifest, where, params.verify_batch)
    return _merged(out, shard, replace=replace) if shard else True


def _manifest(params: EvalParams, found: Found, tasks: Sequence[TaskData], *, blind: bool) -> Manifest:
    from kd_evalsuite.predict import manifest_of

    return manifest_of(
        found.ref,
        tasks,
        protocol=params.protocol,
        blind=blind,
        limit=params.limit,
        mode=params.mode,
        sources=_sources(params),
    )


def _sources(params: EvalParams) -> dict[str, str]:
    """The data set and commit of each benchmark that was fetched from the Hub."""
    found = {key: place_of(params.data, key) for key in params.keys}
    fetched = {key: read_source(folder) for key, folder in found.items() if (folder / SOURCE).is_file()}
    return {key: f"{source.dataset}@{source.revision}" for key, source in fetched.items()}


def _what_failed(failed: Sequence[tuple[str, object]]) -> str:
    counts = {key: sum(k == key for k, _ in failed) for key, _ in failed}
    key, first = failed[0]
    listed = ", ".join(f"{k} {n}" for k, n in counts.items())
    return (
        f"{len(failed)} items have no reply ({listed}), so the run is not complete. The first, of {key}: "
        f"{getattr(first, 'error', first)}. Run the same command again to ask them again."
    )


def _verify(model: Answerer, tasks: Sequence[TaskData], manifest: Manifest, where: Path, n: int) -> None:
    from kd_evalsuite.verifying import verify

    with view.err.status(f"asking {n} items again, alone"):
        compared, different = verify(model, tasks, manifest, where, n)
    view.err.print(f"{compared - len(different)} of {compared} items asked alone were answered as in their batch")
    if different:
        listed = "\n".join(
            f"  {key} {item}: {alone!r} alone, {batch!r} in a batch" for key, item, alone, batch in different
        )
        raise IncompleteError(f"{len(different)} of {compared} items are answered otherwise in a batch:\n{listed}")


def _merged(out: Path, shard: Shard, *, replace: bool) -> bool:
    whole = merge_shards(out, replace=replace)
    said = "all shares are there and were put together" if whole else "the other shares are not complete yet"
    view.err.print(f"share {shard.index} of {shard.count} is done; {said}")
    return whole


def merge(shards: Sequence[Path], out: Path, *, replace: bool) -> None:
    """Put shares together and say how many there are of each task."""
    manifest = merge_folders(shards, out, replace=replace)
    n = sum(task.rows for task in manifest.tasks.values())
    view.out.print(f"{n} predictions of {len(manifest.tasks)} tasks by {view.plain(manifest.model.name)} in {out}")


def _plan(tasks: Sequence[TaskData], manifest: Manifest, out: Path, shard: Shard | None) -> None:
    folders = [out, *shares(out)]
    found = [read_manifest(folder) for folder in folders if (folder / MANIFEST).is_file()]
    other = next((differences(one, manifest) for one in found if one != manifest), "")
    name = view.plain(manifest.model.name)
    view.out.print(
        f"would predict with {name}{' without images' if manifest.blind else ''} into {view.plain(str(out))}"
    )
    if other:
        view.out.print(f"  there are predictions of something else ({view.plain(other)}): --replace would be needed")
    for task in tasks:
        done = 0 if other else len(predicted(folders if shard else [out], task.key))
        view.out.print(f"  {task.key}: {len(task.items)} items, {done} done, data {task.sha256[:8]}")


# ---------------------------------------------------------------- publish


def publish(folders: Sequence[Path], predictions: Sequence[Path], *, dry_run: bool = False) -> None:
    """Record every folder of scores as an MLflow run."""
    from kd_evalsuite.publish import publish_folder, run_name, score_folders
    from kd_evalsuite.score import read_scores

    for folder in score_folders(folders):
        name = view.plain(run_name(read_scores(folder)))
        if dry_run:
            view.out.print(f"would publish {name} from {view.plain(str(folder))}")
        else:
            view.out.print(f"{name}: run {publish_folder(folder, predictions)}")
