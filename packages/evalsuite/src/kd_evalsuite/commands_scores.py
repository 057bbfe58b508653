"""What the commands that score predictions do: one file, folders, one file under every protocol."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_evalsuite import view, view_data
from kd_evalsuite.config import EvalParams
from kd_evalsuite.data import TaskData, load_all
from kd_evalsuite.items import DataError
from kd_evalsuite.predictions import MANIFEST, read_manifest, write_whole
from kd_evalsuite.records import Scores
from kd_evalsuite.tasks import DEFAULT_PROTOCOL, PROTOCOLS, prompts_of, task_named

if TYPE_CHECKING:
    from kd_evalsuite.metrics import Judge


@dataclass(frozen=True, slots=True)
class Judging:
    """A language model as MathVista's judge: server (None: the cache alone), model, cache."""

    url: str | None
    model: str
    cache: Path


def score_one(
    key: str,
    protocol: str | None,
    predictions: Path,
    data: Path,
    *,
    out: Path | None = None,
    as_json: bool = False,
    errata: bool = False,
    judging: Judging | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Score one file of predictions on one task; under the protocol that a manifest beside it names, or another one."""
    from kd_evalsuite.single import load_replies, report

    replies = load_replies(task_named(key).key, predictions, data, errata=errata)
    under = protocol or replies.protocol
    prompts_of(under)
    if dry_run:
        view.out.print(f"would score {len(replies.predictions)} predictions of {key} under {under}")
        return {}
    found = report(replies, under, _judges(key, judging))
    if judging is not None:
        found |= {"extractor": "judge", "judge": judging.model}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, json.dumps(found, indent=1) + "\n")
    if as_json:
        view_data.print_json(found)
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
    if unknown := ({m.protocol for m in manifests} | {protocol or DEFAULT_PROTOCOL}) - set(PROTOCOLS):
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
        view_data.print_json([one.model_dump(by_alias=True) for one in results])
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
    loaded = [load_replies(name, file, data, errata=errata) for name, file in files.items()]
    reports = [[report(replies, protocol) for protocol in PROTOCOLS] for replies in loaded]
    if as_json:
        view_data.print_json([one for task in reports for one in task])
    else:
        asked = loaded[0].manifest.prompts if loaded[0].manifest else ""
        view.out.print(view_data.protocol_table(reports, asked))
