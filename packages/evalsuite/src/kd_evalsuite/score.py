"""From predictions and data to scores. Pure: no model, no torch, the same files every time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_evalsuite.average import average
from kd_evalsuite.data import TaskData
from kd_evalsuite.items import DataError
from kd_evalsuite.metrics import Estimate, Judge, Judged
from kd_evalsuite.predictions import MANIFEST, dump, missing, read_manifest, read_predictions, write_whole
from kd_evalsuite.records import Prediction, Score, Scores
from kd_evalsuite.tasks import PROTOCOLS, task_named

SCORES, ITEMS = "scores.json", "items.jsonl"


@dataclass(frozen=True, slots=True)
class TaskScores:
    """The metrics of one task, the main one first, and the rows of `items.jsonl`."""

    scores: tuple[Score, ...]
    rows: list[dict[str, Any]]


def score_task(data: TaskData, predictions: dict[str, Prediction], protocol: str) -> TaskScores:
    """Every metric of one task under a protocol.

    Args:
        data: The items; without their pictures will do.
        predictions: By item id; every item must have one.
        protocol: Which metrics, and how replies are read.

    Raises:
        DataError: If items have no prediction, or predictions no item.
    """
    task = task_named(data.key)
    if protocol not in PROTOCOLS:
        raise DataError(f"{data.key}: unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}.")
    if absent := missing([i.id for i in data.items], predictions, Path(f"{data.key}.jsonl")):
        raise DataError(
            f"{data.key}: {len(absent)} of {len(data.items)} items have no prediction, e.g. {absent[0]!r}; "
            "run evalsuite predict again, it goes on where it stopped."
        )
    judged: dict[Judge, list[Judged]] = {}
    estimates: list[tuple[str, Estimate]] = []
    for metric in task.metrics_of(protocol):
        if metric.judge not in judged:
            judged[metric.judge] = _judge(metric.judge, data, predictions)
        estimates.append((metric.name, metric.aggregate(judged[metric.judge])))
    version = f"{protocol}-{task.scorer}+{data.sha256[:8]}"
    scores = tuple(_score(data.key, version, name, e, predictions) for name, e in estimates)
    main = estimates[0][1]
    rows = [
        {"task": data.key, "id": j.item.id, "cluster": j.cluster, **_read_of(j), "score": round(share, 6)}
        for j, share in zip(main.judged, main.shares, strict=True)
    ]
    return TaskScores(scores, rows)


def _read_of(one: Judged) -> dict[str, str | None]:
    """What a comparison needs beside the score: MME is a mean within categories, and a reply may be unread."""
    return {"category": one.item.category, "answer": one.verdict.answer}


def _judge(judge: Judge, data: TaskData, predictions: dict[str, Prediction]) -> list[Judged]:
    return [
        Judged(item, item.cluster or one.image_sha256 or item.id, judge(one.prediction, item))
        for item in data.items
        for one in (predictions[item.id],)
    ]


def _score(benchmark: str, version: str, name: str, e: Estimate, predictions: dict[str, Prediction]) -> Score:
    replies = ((j.verdict.answer, predictions[j.item.id].prediction) for j in e.judged)
    answers = Counter((reply.strip() if answer is None else answer).lower() for answer, reply in replies)
    return Score(
        benchmark=benchmark,
        benchmark_version=version,
        metric=name,
        value=e.value,
        best=e.best,
        stderr=e.stderr,
        n=e.n,
        n_unparsed=sum(j.verdict.answer is None for j in e.judged),
        top_answer_share=max(answers.values()) / len(e.judged),
        chance=e.chance,
    )


def score_folder(predictions: Path, out: Path, data: Sequence[TaskData]) -> Scores:
    """Score a folder of predictions; writes `scores.json`, `items.jsonl` and a copy of the manifest to `out`.

    Raises:
        DataError: If the data are not those that were predicted, or predictions are missing.
    """
    manifest = read_manifest(predictions)
    by_key = {d.key: d for d in data}
    parts = []
    for key, expected in manifest.tasks.items():
        found = by_key[key]
        if found.sha256 != expected.data_sha256:
            raise DataError(
                f"{predictions}: {key} was predicted on data with sha256 {expected.data_sha256[:12]}, "
                f"found {found.sha256[:12]}. Point --set data=… to the data used, or predict again."
            )
        parts.append(score_task(found, read_predictions(predictions / f"{key}.jsonl"), manifest.protocol))
    scores = tuple(s for part in parts for s in part.scores)
    result = Scores(
        schema="kd-scores/1",
        model=manifest.model,
        blind=manifest.blind,
        scores=(*scores, average([part.scores[0] for part in parts], manifest.protocol)),
    )
    write_scores(out, result, [row for part in parts for row in part.rows])
    if out.resolve() != predictions.resolve():
        write_whole(out / MANIFEST, dump(manifest.model_dump(by_alias=True)))
    return result


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
