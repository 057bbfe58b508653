"""Ask a model every item that has no answer yet."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from kd_evalsuite.asking import Asker, Question, Say
from kd_evalsuite.data import TaskData
from kd_evalsuite.items import DataError, Item
from kd_evalsuite.models.base import Answerer, Closing, Described, Shown
from kd_evalsuite.predictions import PredictionFile, has_manifest, missing
from kd_evalsuite.records import Failure, Manifest, Mode, ModelRef, TaskManifest
from kd_evalsuite.sharding import Shard, opened, predicted, shares, write_run
from kd_evalsuite.tasks import prompts_of, task_named
from kd_evalsuite.text import LETTERS

Advance = Callable[[int], None]
Progress = Callable[[str, int, int], AbstractContextManager[Advance]]  # (task, all, done) -> how to move on


def manifest_of(
    model: ModelRef,
    tasks: Sequence[TaskData],
    *,
    protocol: str,
    blind: bool,
    limit: int | None,
    mode: Mode = "generate",
    sources: Mapping[str, str] = MappingProxyType({}),
) -> Manifest:
    """What these predictions will be of; `sources` says which edition of a task's public dataset it is, where known."""
    return Manifest(
        schema="kd-predictions/1",
        model=model,
        blind=blind,
        protocol=protocol,
        prompts=prompts_of(protocol),
        mode=mode,
        limit=limit,
        tasks={
            t.key: TaskManifest(
                rows=len(t.items),
                data_sha256=t.sha256,
                max_new_tokens=task_named(t.key).max_new_tokens,
                source=sources.get(t.key, task_named(t.key).source),
            )
            for t in tasks
        },
    )


@dataclass(slots=True)
class Outcome:
    """What came of a run: how many items were asked, and what failed (task, failure)."""

    asked: int = 0
    failed: list[tuple[str, Failure]] = field(default_factory=list)
    model: Answerer | None = None


def predict(
    load_model: Callable[[], Answerer],
    tasks: Sequence[TaskData],
    manifest: Manifest,
    out: Path,
    *,
    batch_size: int,
    progress: Progress,
    replace: bool = False,
    shard: Shard | None = None,
    say: Say = lambda said: None,
) -> Outcome:
    """Predict what `out` does not hold yet.

    Args:
        load_model: Called once, and only if there is something to predict.
        tasks: The items of each task.
        manifest: What the predictions are of; `out` and the shares below it must be empty or hold the same.
        out: One `<task>.jsonl` each, and `manifest.json`; a shard's lie below it.
        batch_size: Items asked together: those on one image, and those alike in length.
        progress: Shows how far it is.
        replace: Start over when `out` holds something else.
        shard: Only this part of the items, without those that `out` or another share already holds.
        say: Told what a user should know: memory that ran out, how the model answers.

    Returns:
        How many items were asked, and which of them failed. A failed item is asked again by the next call.

    Raises:
        DataError: If `out` or a share below it holds something else, or a question cannot be asked in this mode.
        LockedError: If another process predicts into the same folder, or into one that `replace` would remove.
        ModelFailedError: If the model answers nothing.
    """
    outcome = Outcome()
    asker: Asker | None = None
    with opened(out, manifest, shard, replace=replace) as where, _closing(outcome):
        others = [f for f in (out, *shares(out)) if f != where and has_manifest(f, manifest)] if shard else []
        for task in tasks:
            items = shard.part(task.items, _digests) if shard else task.items
            with PredictionFile(where / f"{task.key}.jsonl") as file:
                todo = set(missing([i.id for i in items], file.done, file.path)) - predicted(others, task.key)
                with progress(task.key, len(items), len(items) - len(todo)) as advance:
                    questions = list(ask_of(task.key, (i for i in items if i.id in todo), manifest))
                    if not questions:
                        continue
                    asker = asker or _begin(load_model, manifest.mode, batch_size, where, say, outcome)
                    for batch in batches(questions, asker.together):
                        for lines in asker.lines(batch, manifest.tasks[task.key].max_new_tokens):
                            file.append(lines)
                            outcome.asked += len(lines)
                            outcome.failed += [(task.key, line) for line in lines if isinstance(line, Failure)]
                            advance(len(lines))
    return outcome


@contextmanager
def _closing(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    finally:
        if isinstance(outcome.model, Closing):
            outcome.model.close()


def _begin(load_model: Callable[[], Answerer], mode: Mode, size: int, where: Path, say: Say, outcome: Outcome) -> Asker:
    model = outcome.model = load_model()
    how = model.how if isinstance(model, Described) else {"class": type(model).__name__}
    write_run(where, {**how, "batch_size": str(size)})
    if path := how.get("answers"):
        say(f"answers by {path}")
    return Asker(model, mode, size, say)


def ask_of(key: str, items: Iterable[Item], manifest: Manifest) -> Iterator[Question]:
    """The questions of a task as this manifest asks them.

    Raises:
        DataError: If an image is missing.
    """
    prompt_of = task_named(key).prompts[manifest.prompts]
    for item in items:
        prompt = prompt_of(item)
        options = _options(item) if manifest.mode == "loglikelihood" else ()
        images = tuple(Shown(image_sha256(p.read()), p) for p in prompt.pictures)
        yield Question.of(item, prompt, images, blind=manifest.blind, options=options)


def check_mode(tasks: Sequence[TaskData], mode: Mode) -> None:
    """Whether every item can be asked in this mode.

    Raises:
        DataError: With a line for each task that has items without options, where options are to be compared.
    """
    open_ended = {t.key: sum(not i.choices for i in t.items) for t in tasks} if mode == "loglikelihood" else {}
    if problems := [f"{key}: {n} items have no options to compare" for key, n in open_ended.items() if n]:
        raise DataError(
            "\n".join([*problems, "Mode loglikelihood compares options; leave these tasks out with --tasks."])
        )


def _options(item: Item) -> tuple[str, ...]:
    """The replies to compare: the options' letters, or the words Yes and No where these are the options."""
    words = tuple(c.strip().lower() for c in item.choices) == ("yes", "no")
    return item.choices if words else tuple(LETTERS[: len(item.choices)])


def batches(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Questions on one image together, then questions alike in length, so that little is encoded twice or padded."""
    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault(tuple(image.sha256 for image in question.request.images), []).append(question)
    for group in groups.values():
        group.sort(key=lambda q: len(q.request.text))
    batch: list[Question] = []
    for group in sorted(groups.values(), key=lambda g: (len(g[0].request.images), len(g[-1].request.text))):
        if batch and (len(batch) + len(group) > size or len(batch[0].request.images) != len(group[0].request.images)):
            yield batch
            batch = []
        batch += group
        while len(batch) >= size:
            yield batch[:size]
            batch = batch[size:]
    if batch:
        yield batch


def _digests(item: Item) -> tuple[str, ...]:
    return tuple(image_sha256(picture.read()) for picture in item.pictures)


def image_sha256(data: bytes) -> str:
    """The digest under which an image is known."""
    return hashlib.sha256(data).hexdigest()
