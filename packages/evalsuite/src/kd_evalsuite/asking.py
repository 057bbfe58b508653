"""Ask a model in batches, so that one item's trouble stays its own.

A batch that does not fit into memory is halved, and so are those after it. A batch that fails otherwise is halved until
the item is found that makes it fail; that one is recorded as failed. A model that only fails is given up.
"""

import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kd_evalsuite.items import Item, Prompt
from kd_evalsuite.models.base import Answerer, Chooser, Concurrent, Reply, Request, Shown
from kd_evalsuite.records import Failure, Mode, Prediction

GIVE_UP_AFTER = 20  # items in a row without a reply
LONGEST_ERROR = 500  # characters of a message that are kept

Say = Callable[[str], None]


class ModelFailedError(RuntimeError):
    """The model answers nothing any more."""


@dataclass(frozen=True, slots=True)
class Question:
    """An item as it is asked, with the digests that stand beside its prediction."""

    id: str
    request: Request
    prompt_sha256: str
    image_sha256: str | None

    @classmethod
    def of(
        cls, item: Item, prompt: Prompt, images: tuple[Shown, ...], *, blind: bool, options: tuple[str, ...] = ()
    ) -> "Question":
        """The question; a blind model is not shown the images, whose digest is kept all the same."""
        asked = prompt.blind() if blind else prompt
        digest = hashlib.sha256(asked.marked.encode("utf-8", "surrogatepass")).hexdigest()
        request = Request(asked.text, () if blind else images, options)
        return cls(item.id, request, digest, images[0].sha256 if images else None)

    def answered(self, reply: Reply, seconds: float) -> Prediction:
        """The line of a reply."""
        return Prediction(
            id=self.id,
            prediction=reply.text,
            prompt_sha256=self.prompt_sha256,
            image_sha256=self.image_sha256,
            tokens=reply.tokens,
            seconds=round(seconds if reply.seconds is None else reply.seconds, 6),
        )

    def failed(self, error: BaseException, seconds: float) -> Failure:
        """The line of an item without a reply."""
        said = f"{type(error).__name__}: {error}"[:LONGEST_ERROR]
        return Failure(
            id=self.id,
            error=said,
            prompt_sha256=self.prompt_sha256,
            image_sha256=self.image_sha256,
            seconds=round(seconds, 6),
        )


Lines = list[Prediction | Failure]


class Asker:
    """Asks one model. Remembers how large a batch may be, and how many items in a row have failed.

    Args:
        model: Whom to ask.
        mode: `generate` or `loglikelihood`.
        size: Items asked together at most.
        say: Told of a batch that was halved.
    """

    def __init__(self, model: Answerer, mode: Mode, size: int, say: Say) -> None:
        if mode == "loglikelihood" and not isinstance(model, Chooser):
            raise ValueError(
                f"{type(model).__name__} cannot compare options; mode loglikelihood needs a local checkpoint."
            )
        self.model, self.mode, self.size, self._say = model, mode, size, say
        self._whole, self.halvings = size, 0
        self._in_a_row = 0

    @property
    def together(self) -> int:
        """How many items to hand over at once; to a model that takes any number, all of them."""
        return sys.maxsize if self._one_at_a_time() else self._whole

    def _one_at_a_time(self) -> bool:
        return self.mode == "generate" and isinstance(self.model, Concurrent)

    def lines(self, batch: Sequence[Question], max_new_tokens: int) -> Iterator[Lines]:
        """The lines of a batch, in parts that are ready to be written.

        Raises:
            ModelFailedError: After `GIVE_UP_AFTER` items in a row without a reply; their lines have been given out.
        """
        if self.mode == "generate" and isinstance(self.model, Concurrent):
            yield from self._as_they_come(self.model, batch, max_new_tokens)
            return
        queue = deque([batch])
        while queue:
            part = queue.popleft()
            if len(part) > self.size:  # cut before memory ran out
                queue.extendleft(reversed(_cut(part, self.size)))
                continue
            began = time.perf_counter()
            failure: Exception | None = None
            try:
                replies = self._ask([q.request for q in part], max_new_tokens)
            except Exception as error:  # whatever a model raises is one item's trouble, or memory's
                failure = error.with_traceback(None)  # whose frames would keep the batch in memory
            seconds = (time.perf_counter() - began) / len(part)
            if failure is None:
                self._in_a_row = 0
                yield [q.answered(reply, seconds) for q, reply in zip(part, replies, strict=True)]
            elif len(part) > 1:
                queue.extendleft(reversed(_cut(part, self._halved(part, failure))))
            else:
                yield [part[0].failed(failure, seconds)]
                self._count(failure)

    def _ask(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        if self.mode == "loglikelihood" and isinstance(self.model, Chooser):
            return self.model.choose(requests)
        return self.model.answer(requests, max_new_tokens)

    def _as_they_come(self, model: Concurrent, batch: Sequence[Question], max_new_tokens: int) -> Iterator[Lines]:
        for number, reply in model.answer_each([q.request for q in batch], max_new_tokens):
            if isinstance(reply, Reply):
                self._in_a_row = 0
                yield [batch[number].answered(reply, 0.0)]
            else:
                yield [batch[number].failed(reply, 0.0)]
                self._count(reply)

    def _halved(self, part: Sequence[Question], error: Exception) -> int:
        half = (len(part) + 1) // 2
        if out_of_memory(error):
            self.size, self.halvings = half, self.halvings + 1
            self._say(f"out of memory with {len(part)} items together; going on with {half}")
        return half

    def _count(self, error: Exception) -> None:
        self._in_a_row += 1
        if self._in_a_row >= GIVE_UP_AFTER:
            raise ModelFailedError(
                f"The last {self._in_a_row} items all failed, the last one with {type(error).__name__}: "
                f"{str(error)[:LONGEST_ERROR]}. They are recorded; the same command asks them again."
            ) from error


def out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch could help. torch has a class for a device's memory and only words for the host's."""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in said
        or "can't allocate memory" in said
    )


def _cut(batch: Sequence[Question], size: int) -> list[Sequence[Question]]:
    return [batch[start : start + size] for start in range(0, len(batch), size)]
