"""Batches of pairs: what the models see at each step, prepared ahead of it."""

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from kd_distill.ahead import ahead
from kd_distill.batch import Batch, Rendering
from kd_distill.cache import TeacherCache
from kd_distill.decode import decode
from kd_distill.ledger import BadSampleError, TooManyBadError, refuse_too_frequent
from kd_distill.order import Order
from kd_distill.sources import Source, epoch_of
from kd_distill.tokens import Rows, Tokenizer, batch_of
from kd_distill.views import Box, Preprocessing, crop_box

KEPT_BYTES = 2 << 30
Views = int | np.ndarray | None  # of all rows, of each row, or whole images


class Images:
    """Decoded images, kept in memory up to a bound."""

    def __init__(self, source: Source, bound: int = KEPT_BYTES) -> None:
        self._source, self._room = source, bound
        self._kept: dict[int, UInt8[Tensor, "3 h w"]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        """Raises BadSampleError where there is none."""
        if index in self._kept:
            return self._kept[index]
        image = decode(self._source.image(index))
        with self._lock:
            if image.numel() <= self._room and index not in self._kept:
                self._room -= image.numel()
                self._kept[index] = image
        return image


class Pairs:
    """Pairs of a source as batches for one model, or for several at once.

    A pair whose image cannot be used is replaced by the next one in storage that can, in whatever place it comes: a
    function of the data alone, so that ranks stay in step and a resumed run does the same. `Batch.keys` names the
    pairs that are really in it.

    Args:
        shards: Where the pairs are.
        preprocessing: Of the model.
        tokenize: Captions to token ids of the model.
        tokens: The ids of all captions by `tokenize`, where they were computed before (`shards.tokens(tokenize)`).
        seed: Of the crops. Two models that share it see the same crops.
        views: Number of different crops of an image; pass e over a source shows view e modulo `views`.
        crop_area: Smallest share of the image in a crop.
        caches: Teachers' embeddings of the same views.
        others: Preprocessing and tokenizer of more models: the same crops and captions for each, in `Batch.others`.
        bad_limit: Largest share of pairs that cannot be used.
        workers: Threads that prepare batches.
        timeout: Seconds to wait for one batch.

    Raises:
        TooManyBadError: If more pairs are in the ledger than `bad_limit` allows.
    """

    def __init__(
        self,
        shards: Source,
        preprocessing: Preprocessing,
        tokenize: Tokenizer,
        *,
        seed: int,
        views: int,
        crop_area: float,
        caches: Sequence[TeacherCache] = (),
        tokens: Rows | None = None,
        others: Sequence[tuple[Preprocessing, Tokenizer]] = (),
        bad_limit: float = 0.01,
        workers: int = 1,
        timeout: float = 300.0,
    ) -> None:
        self.shards, self.preprocessing, self.tokenize, self.caches = shards, preprocessing, tokenize, tuple(caches)
        self.seed, self.views, self.crop_area, self.others = seed, views, crop_area, tuple(others)
        self.bad_limit, self.workers, self.timeout = bad_limit, workers, timeout
        self._images, self._tokens = Images(shards), tokens
        self._tried = self._failed = 0
        shards.refuse_too_many(bad_limit)

    def __len__(self) -> int:
        """Samples in one epoch."""
        return epoch_of(self.shards)

    def bad(self) -> dict[str, float]:
        """Pairs in the ledger by cause, as metrics `data/bad/<cause>`."""
        return {f"data/bad/{cause}": float(count) for cause, count in self.shards.counts().items()}

    def batch(self, indices: np.ndarray, view: Views) -> Batch:
        """The pairs `indices` in crop `view` (of all rows, or one a row), or as whole images where `view` is None."""
        found = [self._usable(int(i)) for i in indices]
        rows, images = np.array([i for i, _ in found], np.int64), [image for _, image in found]
        views = None if view is None else np.broadcast_to(view, len(rows))
        boxes: list[Box | None] = [None] * len(rows)
        if views is not None:
            boxes = [crop_box(self.seed, int(v), int(i), self.crop_area) for v, i in zip(views, rows, strict=True)]
        captions = [self.shards.caption(int(i)) for i in rows]
        known = None if self._tokens is None else [self._tokens[int(i)] for i in rows]
        return Batch(
            self.preprocessing(images, boxes),
            self.tokenize(captions) if known is None else batch_of(known, self.tokenize),
            tuple(cache.rows(rows, views) for cache in self.caches) if views is not None else (),
            tuple(self.shards.key(int(i)) for i in rows),
            tuple(Rendering(look(images, boxes), tokenize(captions)) for look, tokenize in self.others),
        )

    def steps(
        self, start: int, stop: int, *, batch_size: int, order_seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """This rank's part of the batches of steps `start` to `stop`, a function of the seeds and the step alone.

        Args:
            start: First step.
            stop: One past the last step.
            batch_size: Of all ranks together. Rank r of W has the rows r*B/W to (r+1)*B/W, so that a run resumed on
                another number of ranks sees the same batches.
            order_seed: Of the order of the pairs.
            rank: This process.
            world: Number of processes.

        Raises:
            ValueError: If an epoch is shorter than one batch, or the ranks do not divide it.
        """
        order = Order(order_seed, *(tuple(column) for column in zip(*self.shards.parts, strict=True)))
        if len(order) < batch_size:
            raise ValueError(
                f"{self.shards.name} holds {len(order)} pairs an epoch, fewer than one batch of {batch_size}."
            )
        if batch_size % world:
            raise ValueError(f"A batch of {batch_size} does not divide among {world} processes.")
        local = batch_size // world

        def drawn(step: int) -> tuple[np.ndarray, np.ndarray]:
            return order(step * batch_size + rank * local + np.arange(local))

        def prepare(step: int) -> Batch:
            indices, passes = drawn(step)
            return self.batch(indices, passes % self.views)

        def describe(step: int) -> str:
            keys = ", ".join(self.shards.key(int(i)) for i in drawn(step)[0][:8])
            return f"The batch of step {step} ({self.shards.name}; {keys}{', ...' if local > 8 else ''})"

        return self._ahead(prepare, start, stop, describe)

    def in_order(self, batch_size: int, view: int | None, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The pairs from `start` to `stop`, all without them, once and in the order of storage."""
        total = len(self.shards) if stop is None else stop

        def indices(k: int) -> np.ndarray:
            return np.arange(start + k * batch_size, min(start + (k + 1) * batch_size, total))

        return self._ahead(
            lambda k: self.batch(indices(k), view),
            0,
            -(-(total - start) // batch_size),
            lambda k: f"The batch of pairs {start + k * batch_size} and up of {self.shards.name}",
        )

    def _ahead(
        self, prepare: Callable[[int], Batch], start: int, stop: int, describe: Callable[[int], str]
    ) -> Iterator[Batch]:
        return ahead(prepare, start, stop, workers=self.workers, timeout=self.timeout, describe=describe)

    def _usable(self, index: int) -> tuple[int, UInt8[Tensor, "3 h w"]]:
        """Pair `index` and its pixels, or those of the next pair that can be used."""
        total = len(self.shards)
        for row in (number % total for number in range(index, index + total)):
            if self.shards.is_rejected(row):
                continue
            self._tried += 1
            try:
                return row, self._images[row]
            except BadSampleError as bad:
                self._failed += 1
                self.shards.reject(row, bad)
                self.shards.refuse_too_many(self.bad_limit)
                refuse_too_frequent(self.shards.counts(), self.shards.name, self._failed, self._tried, self.bad_limit)
        raise TooManyBadError(f"{self.shards.name}: no image can be used.")
