"""Ask a model every item that has no answer yet."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from kd_evalsuite.data import TaskData
from kd_evalsuite.items import Item, Prompt
from kd_evalsuite.models.base import Answerer, Request, Shown
from kd_evalsuite.predictions import PredictionFile, missing, open_folder
from kd_evalsuite.records import Manifest, ModelRef, Prediction, TaskManifest
from kd_evalsuite.tasks import prompts_of, task_named

Advance = Callable[[int], None]
Progress = Callable[[str, int, int], AbstractContextManager[Advance]]  # (task, all, done) -> how to move on


def manifest_of(
    model: ModelRef, tasks: Sequence[TaskData], *, protocol: str, blind: bool, limit: int | None
) -> Manifest:
    """What these predictions will be of."""
    return Manifest(
        schema="kd-predictions/1",
        model=model,
        blind=blind,
        protocol=protocol,
        prompts=prompts_of(protocol),
        limit=limit,
        tasks={
            t.key: TaskManifest(
                rows=len(t.items), data_sha256=t.sha256, max_new_tokens=task_named(t.key).max_new_tokens
            )
            for t in tasks
        },
    )


def predict(
    load_model: Callable[[], Answerer],
    tasks: Sequence[TaskData],
    manifest: Manifest,
    out: Path,
    *,
    batch_size: int,
    progress: Progress,
    replace: bool = False,
) -> int:
    """Predict what `out` does not hold yet.

    Args:
        load_model: Called once, and only if there is something to predict.
        tasks: The items of each task.
        manifest: What the predictions are of; `out` must be empty or hold the same.
        out: One `<task>.jsonl` each, and `manifest.json`.
        batch_size: Items asked together, alike in length.
        progress: Shows how far it is.
        replace: Start over when `out` holds something else.

    Returns:
        How many items were asked.

    Raises:
        DataError: If `out` holds something else.
        LockedError: If another process predicts into `out`.
    """
    open_folder(out, manifest, replace=replace)
    model: Answerer | None = None
    asked = 0
    for task in tasks:
        with PredictionFile(out / f"{task.key}.jsonl") as file:
            todo = set(missing([i.id for i in task.items], file.done, file.path))
            with progress(task.key, len(task.items), len(file.done)) as advance:
                for batch in _batches(task, todo, manifest, batch_size):
                    model = model or load_model()
                    file.append(_ask(model, batch, task_named(task.key).max_new_tokens, blind=manifest.blind))
                    advance(len(batch))
        asked += len(todo)
    return asked


def _batches(task: TaskData, todo: set[str], manifest: Manifest, size: int) -> Iterator[list[tuple[Item, Prompt]]]:
    """Items alike in the number of images and in length together, so that little is padded."""
    ask = task_named(task.key).prompts[manifest.prompts]
    pairs = [(item, ask(item)) for item in task.items if item.id in todo]
    pairs.sort(key=lambda pair: (len(pair[1].pictures), len(pair[1].text)))
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def _ask(
    model: Answerer, batch: Sequence[tuple[Item, Prompt]], max_new_tokens: int, *, blind: bool
) -> list[Prediction]:
    started = time.perf_counter()
    shown = [tuple(Shown(image_sha256(p.read()), p) for p in prompt.pictures) for _, prompt in batch]
    prompts = [prompt.blind() if blind else prompt for _, prompt in batch]
    requests = [Request(p.text, () if blind else images) for p, images in zip(prompts, shown, strict=True)]
    replies = model.answer(requests, max_new_tokens)
    seconds = round((time.perf_counter() - started) / len(batch), 6)
    return [
        Prediction(
            id=item.id,
            prediction=reply.text,
            prompt_sha256=hashlib.sha256(prompt.marked.encode("utf-8", "surrogatepass")).hexdigest(),
            image_sha256=images[0].sha256 if images else None,
            tokens=reply.tokens,
            seconds=seconds,
        )
        for (item, _), prompt, images, reply in zip(batch, prompts, shown, replies, strict=True)
    ]


def image_sha256(data: bytes) -> str:
    """The digest under which an image is known."""
    return hashlib.sha256(data).hexdigest()
