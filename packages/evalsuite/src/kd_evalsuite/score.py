"""From predictions and data to scores. Pure: no model, no torch, the same files every time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_evalsuite.average import average
from kd_evalsuite.data import TaskData
from kd_evalsuite.items import DataError, Item
from kd_evalsuite.metrics import Estimate, Judge, Judged, Metric, NothingCountsError
from kd_evalsuite.predictions import MANIFEST, dump, missing, read_manifest, read_predictions, write_whole
from kd_evalsuite.records import Mode, Prediction, Score, Scores
from kd_evalsuite.tasks import PROTOCOLS, TASKS, task_named

SCORES, ITEMS = "scores.json", "items.jsonl"


@dataclass(frozen=True, slots=True)
class TaskScores:
    """The metrics of one task, the main one first, and the rows of `items.jsonl`."""

    scores: tuple[Score, ...]
    rows: list[dict[str, Any]]


def score_task(
    data: TaskData, predictions: dict[str, Prediction], protocol: str, mode: Mode = "generate"
) -> TaskScores:
    """Every metric of one task under a protocol.

    Args:
        data: The items; without their pictures will do.
        predictions: By item id; every item must have one.
        protocol: Which metrics, and how replies are read.
        mode: How the replies were got.

    Raises:
        DataError: If items have no prediction, or predictions no item.
    """
    task = task_named(data.key)
    if protocol not in PROTOCOLS:
        raise DataError(f"{data.key}: unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}.")
    require_all(data, predictions, Path(f"{data.key}.jsonl"))
    estimates = estimated(task.metrics_of(protocol), data.items, predictions)
    version = version_of(data, protocol, mode)
    scores = tuple(_score(data.key, version, metric.name, e, predictions) for metric, e in estimates)
    main = estimates[0][1]
    rows = [
        {"task": data.key, "id": j.item.id, "cluster": j.cluster, **_read_of(j), "score": round(share, 6)}
        for j, share in zip(main.judged, main.shares, strict=True)
    ]
    return TaskScores(scores, rows)


def _read_of(one: Judged) -> dict[str, str | None]:
    """What a comparison needs beside the score: MME is a mean within categories, and a reply may be unread."""
    return {"category": one.item.category, "answer": one.verdict.answer}


def require_all(data: TaskData, predictions: Mapping[str, Prediction], path: Path) -> None:
    """Every item must have a prediction, and every prediction an item.

    Raises:
        DataError: If not, with how many and one of them.
    """
    if absent := missing([i.id for i in data.items], predictions, path):
        raise DataError(
            f"{data.key}: {len(absent)} of {len(data.items)} items have no prediction, e.g. {absent[0]!r}; "
            "run evalsuite predict again, it goes on where it stopped."
        )


def version_of(data: TaskData, protocol: str, mode: Mode) -> str:
    """What a score is comparable within: how replies were got where they were not generated, protocol, scorer, data."""
    return f"{_in_mode(protocol, mode)}-{task_named(data.key).scorer}+{data.sha256[:8]}"


def protocol_of(version: str) -> str | None:
    """The protocol in such a version; None in one of another form, as of zero-shot classification."""
    name = version.partition("+")[0].rpartition("-")[0].rpartition("-")[2]
    return name if name in PROTOCOLS else None


def _in_mode(protocol: str, mode: Mode) -> str:
    """Options that were compared are another protocol: such scores say so, and are comparable with each other only."""
    return protocol if mode == "generate" else f"{mode}-{protocol}"


def estimated(
    metrics: Sequence[Metric], items: Sequence[Item], predictions: Mapping[str, Prediction]
) -> list[tuple[Metric, Estimate]]:
    """Each metric with its estimate; one for which no item counts is left out, unless it is the main one.

    Raises:
        NothingCountsError: If no item counts for the main metric.
    """
    judged: dict[Judge, list[Judged]] = {}
    found: list[tuple[Metric, Estimate]] = []
    for metric in metrics:
        if metric.judge not in judged:
            judged[metric.judge] = judged_items(metric.judge, items, predictions)
        try:
            found.append((metric, metric.aggregate(judged[metric.judge])))
        except NothingCountsError:
            if not found:
                raise
    return found


def judged_items(judge: Judge, items: Sequence[Item], predictions: Mapping[str, Prediction]) -> list[Judged]:
    """Each item with its verdict and the cluster that it is resampled with: its own, or its picture."""
    return [
        Judged(item, item.cluster or one.image_sha256 or item.id, judge(one.prediction, item))
        for item in items
        for one in (predictions[item.id],)
    ]


def favourite(judged: Sequence[Judged], predictions: Mapping[str, Prediction]) -> tuple[str, float]:
    """The answer given most often (a reply that could not be read counts as it stands), and its share."""
    replies = ((j.verdict.answer, predictions[j.item.id].prediction) for j in judged)
    answers = Counter((reply.strip() if answer is None else answer).lower() for answer, reply in replies)
    top = max(answers.values())
    return min(answer for answer, n in answers.items() if n == top), top / len(judged)


def _score(benchmark: str, version: str, name: str, e: Estimate, predictions: dict[str, Prediction]) -> Score:
    return Score(
        benchmark=benchmark,
        benchmark_version=version,
        metric=name,
        value=e.value,
        best=e.best,
        stderr=e.stderr,
        n=e.n,
        n_unparsed=sum(j.verdict.answer is None for j in e.judged),
        top_answer_share=favourite(e.judged, predictions)[1],
        chance=e.chance,
    )


def score_folder(predictions: Path, out: Path, data: Sequence[TaskData], *, protocol: str | None = None) -> Scores:
    """Score a folder of predictions; writes `scores.json`, `items.jsonl` and a copy of the manifest to `out`.

    Args:
        predictions: The folder.
        out: Where the scores go.
        data: The items of its tasks.
        protocol: Another one than that of the predictions; it reads replies in its own way, they are not asked again.

    Raises:
        DataError: If the data are not those that were predicted, or predictions are missing.
    """
    manifest = read_manifest(predictions)
    by_key = {d.key: d for d in data}
    under = protocol or manifest.protocol
    parts = []
    for key, expected in manifest.tasks.items():
        found = by_key[key]
        if found.sha256 != expected.data_sha256:
            raise DataError(
                f"{predictions}: {key} was predicted on data with sha256 {expected.data_sha256[:12]}, "
                f"found {found.sha256[:12]}. Point --set data=… to the data used, or predict again."
            )
        parts.append(score_task(found, read_predictions(predictions / f"{key}.jsonl"), under, manifest.mode))
    scores = tuple(s for part in parts for s in part.scores)
    result = Scores(
        schema="kd-scores/1",
        model=manifest.model,
        blind=manifest.blind,
        scores=(*scores, *_average(parts, _in_mode(under, manifest.mode))),
    )
    write_scores(out, result, [row for part in parts for row in part.rows])
    if out.resolve() != predictions.resolve():
        write_whole(out / MANIFEST, dump(manifest.model_dump(by_alias=True)))
    return result


def _average(parts: Sequence[TaskScores], protocol: str) -> tuple[Score, ...]:
    """The Average over those of the sixteen that were asked; variants are not part of it."""
    mains = [part.scores[0] for part in parts if part.scores[0].benchmark in TASKS]
    return (average(mains, protocol),) if mains else ()


def write_scores(out: Path, scores: Scores, rows: Sequence[dict[str, Any]]) -> None:
    """`items.jsonl` and, when that is there, `scores.json`."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / ITEMS, "".join(dump(row, indent=None) for row in rows))
    write_whole(out / SCORES, dump(scores.model_dump(by_alias=True)))


def read_scores(folder: Path) -> Scores:
    """The scores in a folder.

    Raises:
        DataError: If there are none.
    """
    path = folder / SCORES
    if not path.is_file():
        raise DataError(f"Expected {SCORES} in {folder}, found none.")
    return Scores.model_validate_json(path.read_text())
