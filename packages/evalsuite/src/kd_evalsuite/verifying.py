"""Whether a batch changed answers: some items asked again, alone, in the plainest way."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kd_evalsuite.asking import Question
from kd_evalsuite.data import TaskData
from kd_evalsuite.models.base import Answerer, Chooser, Reply, Verifiable
from kd_evalsuite.predict import ask_of
from kd_evalsuite.predictions import read_predictions
from kd_evalsuite.records import Manifest

Difference = tuple[str, str, str, str]  # task, item, the reply alone, the reply in a batch


def verify(
    model: Answerer, tasks: Sequence[TaskData], manifest: Manifest, folder: Path, n: int
) -> tuple[int, list[Difference]]:
    """Ask `n` predicted items of all tasks again and compare; which ones depends on their ids alone.

    Returns:
        How many were compared, and those that differ.
    """
    done = {t.key: read_predictions(folder / f"{t.key}.jsonl") for t in tasks}
    every = [(t.key, item) for t in tasks for item in t.items if item.id in done[t.key]]
    every.sort(key=lambda pair: hashlib.sha256(f"{pair[0]}/{pair[1].id}".encode()).digest())
    different = []
    for key, item in every[:n]:
        (question,) = ask_of(key, [item], manifest)
        alone = _alone(model, question, manifest, manifest.tasks[key].max_new_tokens).text
        batch = done[key][item.id].prediction
        if alone != batch:
            different.append((key, item.id, alone, batch))
    return len(every[:n]), different


def _alone(model: Answerer, question: Question, manifest: Manifest, max_new_tokens: int) -> Reply:
    if manifest.mode == "loglikelihood" and isinstance(model, Chooser):
        return model.choose([question.request])[0]
    if isinstance(model, Verifiable):
        return model.answer_plainly(question.request, max_new_tokens)
    return model.answer([question.request], max_new_tokens)[0]
