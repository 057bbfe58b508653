"""What the commands about benchmarks and scores do: find, check, call, show."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_evalsuite import view, view_data
from kd_evalsuite.config import EvalParams, ZeroshotParams
from kd_evalsuite.data import TaskData, folder_of, load_all, load_folder
from kd_evalsuite.finding import find_model, load_params, use_threads
from kd_evalsuite.items import DataError
from kd_evalsuite.predictions import MANIFEST, read_manifest, read_predictions, write_whole
from kd_evalsuite.records import ModelRef, Scores
from kd_evalsuite.tasks import EVERY, PROTOCOLS, TASKS, prompts_of, task_named

if TYPE_CHECKING:
    from kd_evalsuite.metrics import Judge


def data_root(data: Path | None, params: Path, overrides: Sequence[str]) -> Path:
    """Where the benchmarks are: as given, or as the parameters say.

    Raises:
        DataError: If neither says it.
    """
    if data is not None:
        return data
    if not params.is_file():
        raise DataError(f"Expected --data, or a parameter file with a section `evalsuite`; there is no {params}.")
    return load_params(params, overrides).data


def chosen(tasks: str, root: Path) -> list[str]:
    """The benchmarks named with commas between, or all of the sixteen that have a folder in `root`.

    Raises:
        DataError: If none has.
    """
    if tasks != "all":
        return [task_named(key.strip()).key for key in tasks.split(",") if key.strip()]
    found = [key for key in TASKS if (root / folder_of(root, key)).is_dir()]
    if not found:
        raise DataError(f"Expected folders of benchmarks ({', '.join(list(TASKS)[:3])}, …) in {root}, found none.")
    return found


def _print_json(value: object) -> None:
    view.out.print(json.dumps(value, ensure_ascii=False, indent=1), markup=False, highlight=False, soft_wrap=True)


# ---------------------------------------------------------------- score


@dataclass(frozen=True, slots=True)
class Judging:
    """A language model as MathVista's judge: server (None: the cache alone), model, cache."""

    url: str | None
    model: str
    cache: Path


def score_one(
    key: str,
    protocol: str,
    predictions: Path,
    data: Path,
    *,
    out: Path | None = None,
    as_json: bool = False,
    errata: bool = False,
    judging: Judging | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Score one file of predictions on one task."""
    from kd_evalsuite.single import load_replies, report

    replies = load_replies(task_named(key).key, predictions, data, errata=errata)
    prompts_of(protocol)
    if dry_run:
        view.out.print(f"would score {len(replies.predictions)} predictions of {key} under {protocol}")
        return {}
    found = report(replies, protocol, _judges(key, judging))
    if judging is not None:
        found["judge"] = judging.model
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    if as_json:
        _print_json(found)
    else:
        view.out.print(view_data.report_table(found))
    return found


def _judges(key: str, judging: Judging | None) -> dict[str, "Judge"]:
    if judging is None:
        return {}
    if key != "mathvista":
        raise DataError(f"{key}: a judge extracts MathVista's answers only; its own scorer needs none.")
    from kd_evalsuite.llm_judge import Cache, client, judged

    ask = client(judging.url, judging.model) if judging.url else None
    return {"accuracy": judged(Cache(judging.cache, judging.model, ask))}


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
            raise DataError(
                f"Expected predictions ({MANIFEST}) in {folder} or in folders below it, found none. "
                "A single file is scored with --task."
            )
        found.extend((p, target / p.name) for p in below)
    return found


def score(params: EvalParams, folders: Sequence[tuple[Path, Path]], *, dry_run: bool = False) -> list[Scores]:
    """Score each folder on the data of the parameters."""
    return score_folders(params.data, folders, dry_run=dry_run)


def score_folders(
    root: Path,
    folders: Sequence[tuple[Path, Path]],
    *,
    protocol: str | None = None,
    as_json: bool = False,
    dry_run: bool = False,
) -> list[Scores]:
    """Score each folder; the data of a task are read once. Under the protocol of the predictions, or another one."""
    from kd_evalsuite.score import score_folder

    manifests = [read_manifest(folder) for folder, _ in folders]
    if unknown := ({m.protocol for m in manifests} | {protocol or "paper"}) - set(PROTOCOLS):
        raise DataError(f"Unknown protocols: {', '.join(sorted(unknown))}; known: {', '.join(PROTOCOLS)}.")
    loaded: dict[int | None, dict[str, TaskData]] = {}
    for manifest in manifests:
        have = loaded.setdefault(manifest.limit, {})
        new = [key for key in manifest.tasks if key not in have]
        have |= {d.key: d for d in load_all(root, new, limit=manifest.limit, pictures=False)}
    results = []
    for (folder, target), manifest in zip(folders, manifests, strict=True):
        if dry_run:
            view.out.print(f"would score {view.plain(str(folder))} ({len(manifest.tasks)} tasks) into {target}")
            continue
        results.append(score_folder(folder, target, list(loaded[manifest.limit].values()), protocol=protocol))
        if not as_json:
            view.out.print(view.score_table(results[-1]))
    if as_json:
        _print_json([one.model_dump(by_alias=True) for one in results])
    return results


def rescore(key: str | None, predictions: Path, data: Path, *, as_json: bool = False, errata: bool = False) -> None:
    """One file of predictions, or each in a folder, under every protocol.

    Raises:
        DataError: If a file comes without a task.
    """
    from kd_evalsuite.single import load_replies, report

    if key is not None:
        files = {task_named(key).key: predictions}
    elif (predictions / MANIFEST).is_file():
        files = {name: predictions / f"{name}.jsonl" for name in read_manifest(predictions).tasks}
    else:
        raise DataError(f"Expected --task for the file {predictions}, or a folder of predictions with {MANIFEST}.")
    reports = []
    for name, file in files.items():
        replies = load_replies(name, file, data, errata=errata)
        reports.append([report(replies, protocol) for protocol in PROTOCOLS])
    if as_json:
        _print_json([one for task in reports for one in task])
    else:
        view.out.print(view_data.protocol_table(reports))


# ---------------------------------------------------------------- look at data


def doctor(root: Path, tasks: str, *, complete: bool, pictures: bool, as_json: bool) -> None:
    """What is wrong with the data of each benchmark.

    Raises:
        DataError: If anything is.
    """
    from kd_evalsuite.checks import as_json as findings_json
    from kd_evalsuite.checks import examine

    findings = [examine(root, key, complete=complete, pictures=pictures) for key in chosen(tasks, root)]
    if as_json:
        view.out.print(findings_json(findings), markup=False, highlight=False, soft_wrap=True)
    else:
        view.out.print(view_data.findings_table(findings))
    if bad := [f.task for f in findings if f.problems]:
        raise DataError(f"{len(bad)} of {len(findings)} benchmarks cannot be used as they are: {', '.join(bad)}.")


def show_baselines(root: Path, tasks: str, protocol: str, blind: Path | None, *, as_json: bool) -> None:
    """The baselines of each benchmark."""
    from kd_evalsuite.baselines import baselines

    prompts_of(protocol)
    if blind is not None and not read_manifest(blind).blind:
        raise DataError(f"{blind}: expected predictions made with --blind, these were made with the images.")
    rows = []
    for key in chosen(tasks, root):
        data = load_folder(root, key, pictures=False)
        said = read_predictions(blind / f"{key}.jsonl") if blind is not None else {}
        rows.append(baselines(data, protocol, said or None))
    if as_json:
        _print_json([row.as_json() for row in rows])
    else:
        view.out.print(view_data.baseline_table(rows))


def fetch(keys: Sequence[str], root: Path, *, revision: str | None, dataset: str | None, dry_run: bool) -> None:
    """Bring benchmarks from the hub."""
    from kd_evalsuite.hub import fetch as bring
    from kd_evalsuite.hub import read_source

    names = list(TASKS) if list(keys) == ["all"] else [task_named(key).key for key in keys]
    if dataset is not None and len(names) != 1:
        raise DataError(f"--dataset goes with one benchmark, got {len(names)}.")
    for key in names:
        hub = EVERY[key].hub
        wanted = revision or hub.revision or "its newest commit, which is then kept"
        if dry_run:
            view.out.print(f"would fetch {key}: {dataset or hub.dataset}, {', '.join(hub.files)}, at {wanted}")
            continue
        with view.err.status(f"fetching {key} from {dataset or hub.dataset}"):
            folder = bring(key, root, revision=revision, dataset=dataset)
        source = read_source(folder)
        view.out.print(f"{key}: {source.dataset}@{source.revision}, {len(source.files)} files in {folder}")


def show_tasks(*, as_json: bool = False) -> None:
    """The table of benchmarks."""
    if as_json:
        _print_json([view_data.task_row(task) for task in EVERY.values()])
    else:
        view.out.print(view_data.task_table(EVERY.values()))


def show_item(key: str, root: Path, protocol: str, item_id: str | None) -> None:
    """One item as the model sees it."""
    data = load_folder(root, task_named(key).key)
    found = next((i for i in data.items if item_id in (None, i.id)), None)
    if found is None:
        raise DataError(f"{key}: expected an item {item_id!r}, found none; the first is {data.items[0].id!r}.")
    view_data.show(data, found, protocol)


# ---------------------------------------------------------------- zero-shot


def zeroshot(
    given: ZeroshotParams,
    models: Sequence[str],
    out: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    dry_run: bool = False,
) -> None:
    """Classify with each encoder; scores go to `out/<name>/`."""
    from kd_evalsuite.score import write_scores
    from kd_evalsuite.zeroshot.config import check_config
    from kd_evalsuite.zeroshot.imagenet import shared_names
    from kd_evalsuite.zeroshot.sets import open_set

    data = open_set(given.data, names=given.names, templates=given.templates)
    if shared := shared_names(data.names):
        view.err.print(f"names of several classes, which nothing can tell apart: {view.plain(', '.join(shared))}")
    found = [find_model(model) for model in models]
    if repeated := {m.name for m in found if sum(n.name == m.name for n in found) > 1}:
        raise DataError(f"Models of one name would share a folder: {', '.join(sorted(repeated))}.")
    for model in found:
        check_config(model.path)
        if dry_run:
            what = f"{len(data.names)} classes ({data.layout}, {len(data.templates)} templates)"
            view.out.print(f"would classify {what} with {model.name} into {out / model.name}")
    if dry_run:
        return
    from kd_evalsuite.zeroshot.classify import Encoder, classify

    use_threads(threads)
    with view.bars() as progress:
        for model in found:
            with view.one_bar(progress, model.name, None) as advance:
                encoder = Encoder(model.path, device)
                kept = f"{model.sha256[:16]}-{data.fingerprint[:16]}-{given.limit or 'all'}.npz"
                scores, rows = classify(
                    encoder,
                    data,
                    batch_size=given.batch_size,
                    limit=given.limit,
                    workers=given.workers,
                    advance=advance,
                    cache=given.cache / kept if given.cache else None,
                )
            ref = ModelRef(kind=model.kind, name=model.name, sha256=model.sha256)
            result = Scores(schema="kd-scores/1", model=ref, blind=False, scores=scores)
            write_scores(out / model.name, result, rows)
            view.out.print(view.score_table(result))
