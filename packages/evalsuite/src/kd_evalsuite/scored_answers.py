"""Answer files, as LLaVA, lmms-eval and other suites write them, scored on the spot to be compared."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kd_evalsuite.average import AVERAGE
from kd_evalsuite.items import DataError
from kd_evalsuite.records import ModelRef, Scores
from kd_evalsuite.results import ItemRow, Result, label_of
from kd_evalsuite.score import score_task
from kd_evalsuite.single import load_replies

KIND = "answers"


def result_of_answers(path: Path, task: str, data: Path, protocol: str | None = None) -> Result:
    """One model's answers to one task; what a manifest beside them says of them goes into the scores.

    Args:
        path: The file; its name without suffix stands for the model.
        task: Which benchmark.
        data: The benchmark's folder or file, or a folder that holds the folders of several.
        protocol: How the replies are read; None for the one that the manifest names, else the default one.

    Raises:
        DataError: If a file is not as expected, or items have no answer.
    """
    replies = load_replies(task, path, data)
    scored = score_task(replies.data, dict(replies.predictions), protocol or replies.protocol, replies.mode)
    with path.open("rb") as stream:
        ref = ModelRef(kind=KIND, name=path.stem, sha256=hashlib.file_digest(stream, "sha256").hexdigest())
    blind = replies.manifest is not None and replies.manifest.blind
    scores = Scores(schema="kd-scores/1", model=ref, blind=blind, scores=scored.scores)
    rows = {row.id: row for row in map(ItemRow.model_validate, scored.rows)}
    said = {key: one.prediction for key, one in replies.predictions.items()}
    return Result(path.parent, label_of(scores), scores, {task: rows}, path.parent, {task: said})


def only_task(tasks: Sequence[str], data: Path | None) -> tuple[str, Path]:
    """The task and the data that answer files need.

    Raises:
        DataError: If not exactly one task is named, or no data.
    """
    if len(tasks) != 1 or tasks[0] == AVERAGE or data is None:
        raise DataError("Answer files are scored on one task: pass --task KEY and --data FOLDER with its questions.")
    return tasks[0], data
