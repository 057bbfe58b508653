"""What the commands about benchmarks and scores do: find, check, call, show."""

from collections.abc import Sequence
from pathlib import Path

from kd_evalsuite import view
from kd_evalsuite.config import EvalParams
from kd_evalsuite.data import TaskData, load_all
from kd_evalsuite.finding import find_model, use_threads
from kd_evalsuite.items import DataError
from kd_evalsuite.predictions import MANIFEST, read_manifest
from kd_evalsuite.records import ModelRef, Scores
from kd_evalsuite.tasks import PROTOCOLS, TASKS, prompts_of, task_named

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

    use_threads(params.threads)
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
    view.out.print(f"metric: {task.metrics_of(params.protocol)[0].name}, at most {task.max_new_tokens} new tokens")
