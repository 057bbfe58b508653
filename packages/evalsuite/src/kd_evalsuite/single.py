"""One task, one file of predictions, one protocol: the score with everything that says how far to trust it.

Pure and deterministic: the same files give the same bytes; no model, no parameters, no network.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_evalsuite.answers import Matched, match, read_answers
from kd_evalsuite.data import TaskData, load_folder
from kd_evalsuite.errata import Corrected, correct, errata_of
from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Estimate, Judge, Judged, Metric
from kd_evalsuite.predictions import manifest_beside
from kd_evalsuite.protocols.mathvista import RULES_VERSION
from kd_evalsuite.records import Manifest, Mode, Prediction
from kd_evalsuite.score import estimated, favourite, require_all, version_of
from kd_evalsuite.tasks import DEFAULT_PROTOCOL, prompts_of, task_named
from kd_evalsuite.text import EXTRACTOR_VERSION

SCHEMA = "kd-score/1"
DEGENERATE = 0.99  # a favourite answer with at least this share says more about the model than the score does


@dataclass(frozen=True, slots=True)
class Replies:
    """A task's items and a reply to each, ready to be scored under any protocol.

    Attributes:
        data: Items.
        predictions: By item id.
        unmatched: Replies in the file that are of no item.
        corrected: Labels that were corrected, where that was asked for.
        manifest: How the replies were made, where that stands beside their file.
    """

    data: TaskData
    predictions: Mapping[str, Prediction]
    unmatched: int
    corrected: Corrected | None = None
    manifest: Manifest | None = None

    @property
    def mode(self) -> Mode:
        """How the replies were got; generated, where nothing says otherwise."""
        return self.manifest.mode if self.manifest else "generate"

    @property
    def protocol(self) -> str:
        """The protocol that the replies were made for; the default one, where nothing says it."""
        return self.manifest.protocol if self.manifest else DEFAULT_PROTOCOL


def load_replies(key: str, predictions: Path, data: Path, *, errata: bool = False) -> Replies:
    """Read both files and put them together.

    A manifest beside the predictions says of how many items they are.

    Args:
        key: The task.
        predictions: A file of ours, or of another suite (`kd_evalsuite.answers`).
        data: The benchmark's folder or file, or a folder that holds the folders of several.
        errata: Correct the labels that are known to be wrong.

    Raises:
        DataError: If a file is not as expected, or an item has no reply or several.
    """
    answers = read_answers(predictions)
    manifest = manifest_beside(predictions)
    found = load_folder(data, key, limit=manifest.limit if manifest else None, pictures=False)
    matched = match(answers, found.items, predictions)
    require_all(found, matched.predictions, predictions)
    found = _clustered(found, matched, data)
    corrected = None
    if errata and (known := errata_of(key)):
        corrected = correct(found.items, known)
        found = dataclasses.replace(found, items=corrected.items)
    return Replies(found, matched.predictions, matched.unmatched, corrected, manifest)


def _clustered(data: TaskData, matched: Matched, path: Path) -> TaskData:
    """The items with the picture they share as their cluster, where neither item nor prediction says which it is."""
    bare = [i for i in data.items if i.pictures and not i.cluster and not matched.predictions[i.id].image_sha256]
    if not bare:
        return data
    full = load_folder(path, data.key, pictures=True)
    unknown = {item.id for item in bare}
    names = {item.id: _picture_name(item) for item in full.items if item.id in unknown}
    items = [dataclasses.replace(i, cluster=names.get(i.id, i.cluster)) for i in data.items]
    return dataclasses.replace(data, items=items)


def _picture_name(item: Item) -> str:
    picture = item.pictures[0]
    if picture.data is None and picture.path is not None and not picture.path.is_file():
        return picture.path.name  # the picture is not here; its name tells which items share it
    return hashlib.sha256(picture.read()).hexdigest() if picture.data or picture.path else item.id


def report(replies: Replies, protocol: str, judges: Mapping[str, Judge] | None = None) -> dict[str, Any]:
    """The score as JSON: the main metric at the top, the others below it, then categories, data and predictions.

    Args:
        replies: Items with their replies.
        protocol: How replies are read and what is computed.
        judges: By metric, in place of the protocol's own judge.
    """
    prompts_of(protocol)
    task, given = task_named(replies.data.key), judges or {}
    metrics = [dataclasses.replace(m, judge=given.get(m.name, m.judge)) for m in task.metrics_of(protocol)]
    (main, first), *others = estimated(metrics, replies.data.items, replies.predictions)
    version = version_of(replies.data, protocol, replies.mode) + ("+errata" if replies.corrected else "")
    return {
        "schema": SCHEMA,
        "task": task.key,
        "protocol": protocol,
        **_numbers(main, first, replies.predictions),
        "favourite": _favourite(first, replies.predictions),
        "scorer": version,
        "scorer_version": task.scorer,
        "extractor": extractor_of(task.key),
        "prompts": prompts_of(protocol),
        "metrics": [_numbers(metric, estimate, replies.predictions) for metric, estimate in others],
        "categories": _categories(main, first),
        "data": _data(replies, task.size),
        "predictions": _said(replies, task.max_new_tokens),
        "errata": _errata(replies),
    }


def extractor_of(key: str) -> str:
    """How answers are found in replies: the version of the rules for letters, or of those for MathVista."""
    return f"mathvista-rules-{RULES_VERSION}" if key == "mathvista" else f"text-{EXTRACTOR_VERSION}"


def unit_of(best: float) -> tuple[str, float]:
    """The unit in which a metric is given, and the factor to it: percent, or points where it is a sum."""
    return ("percent", 100.0) if best == 1 else (f"points of {best:.0f}", 1.0)


def _numbers(metric: Metric, e: Estimate, predictions: Mapping[str, Prediction]) -> dict[str, Any]:
    unit, scale = unit_of(e.best)
    return {
        "metric": metric.name,
        "value": scale * e.value,
        "unit": unit,
        "stderr": scale * e.stderr,
        "n": e.n,
        "items": len(e.judged),
        "unparsed": sum(j.verdict.answer is None for j in e.judged),
        "top_answer_share": favourite(e.judged, predictions)[1],
        "chance": None if e.chance is None else scale * e.chance,
        "best": scale * e.best,
    }


def _favourite(e: Estimate, predictions: Mapping[str, Prediction]) -> dict[str, Any]:
    answer, share = favourite(e.judged, predictions)
    return {"answer": answer, "share": share, "degenerate": share >= DEGENERATE}


def _categories(metric: Metric, e: Estimate) -> dict[str, Any]:
    names = sorted({j.item.category for j in e.judged} - {""})
    if len(names) < 2:
        return {}
    return {name: _category(metric, [j for j in e.judged if j.item.category == name]) for name in names}


def _category(metric: Metric, judged: Sequence[Judged]) -> dict[str, Any]:
    e = metric.aggregate(judged)
    unit, scale = unit_of(e.best)
    return {
        "value": scale * e.value,
        "unit": unit,
        "stderr": scale * e.stderr,
        "n": e.n,
        "unparsed": sum(j.verdict.answer is None for j in judged),
        "chance": None if e.chance is None else scale * e.chance,
    }


def _data(replies: Replies, size: int) -> dict[str, Any]:
    n = len(replies.data.items)
    return {"sha256": replies.data.sha256, "items": n, "public_items": size, "complete": n == size}


def _said(replies: Replies, limit: int) -> dict[str, Any]:
    some = list(replies.predictions.values())
    return {
        "rows": len(some),
        "of_no_item": replies.unmatched,
        "blank": sum(not p.prediction.strip() for p in some),
        "at_token_limit": sum(p.tokens >= limit for p in some),
        "blind": replies.manifest.blind if replies.manifest else None,
        "mode": replies.manifest.mode if replies.manifest else None,
    }


def _errata(replies: Replies) -> dict[str, Any]:
    known = errata_of(replies.data.key)
    if known is None:
        return {"known": 0, "applied": []}
    applied = list(replies.corrected.changed) if replies.corrected else []
    already = list(replies.corrected.already) if replies.corrected else []
    return {"known": len(known.labels), "applied": applied, "already_right": already, "source": list(known.source)}
