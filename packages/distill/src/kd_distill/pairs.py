"""Batches of pairs: what a model sees at each step, prepared ahead of it in a thread."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from kd_distill.batch import Batch
from kd_distill.cache import TeacherCache
from kd_distill.shards import PairShards
from kd_distill.views import Preprocessing, crop_box, order

KEPT_BYTES = 2 << 30
AHEAD = 3


class Images:
    """Decoded images, kept in memory up to a bound."""

    def __init__(self, shards: PairShards, bound: int = KEPT_BYTES) -> None:
        self._shards, self._room = shards, bound
        self._kept: dict[int, Image.Image] = {}

    def __getitem__(self, index: int) -> Image.Image:
        if index in self._kept:
            return self._kept[index]
        image = self._shards.image(index)
        size = 4 * image.width * image.height  # bytes that PIL takes for RGB
        if size <= self._room:
            self._room -= size
            self._kept[index] = image
        return image


class Pairs:
    """Pairs of a folder of shards as batches for one model.

    Args:
        shards: Where the pairs are.
        preprocessing: Of the model.
        tokenize: Captions to token ids of the model.
        seed: Of the crops. Two models that share it see the same crops.
        views: Number of different crops of an image; epoch e shows view e modulo `views`.
        crop_area: Smallest share of the image in a crop.
        cache: The teacher's embeddings of the same views, or None.
    """

    def __init__(
        self,
        shards: PairShards,
        preprocessing: Preprocessing,
        tokenize: Callable,
        *,
        seed: int,
        views: int,
        crop_area: float,
        cache: TeacherCache | None = None,
    ) -> None:
        self.shards, self.preprocessing, self.tokenize, self.cache = shards, preprocessing, tokenize, cache
        self.seed, self.views, self.crop_area = seed, views, crop_area
        self._images = Images(shards)

    def batch(self, indices: np.ndarray, view: int | None) -> Batch:
        """The pairs `indices` in crop `view`, or as whole images where `view` is None."""
        rows = [int(i) for i in indices]
        boxes = [None if view is None else crop_box(self.seed, view, i, self.crop_area) for i in rows]
        images = self.preprocessing([self._images[i] for i in rows], boxes)
        teachers = (self.cache.rows(indices, view),) if self.cache and view is not None else ()
        keys = tuple(self.shards.pairs[i].key for i in rows)
        return Batch(images, self.tokenize([self.shards.caption(i) for i in rows]), teachers, keys)

    def steps(self, start: int, stop: int, *, batch_size: int, order_seed: int) -> Iterator[Batch]:
        """The batches of steps `start` to `stop`, a function of the seeds and the step alone."""
        per_epoch = len(self.shards) // batch_size
        if not per_epoch:
            raise ValueError(
                f"{self.shards.folder} holds {len(self.shards)} pairs, fewer than one batch of {batch_size}."
            )

        def prepare(step: int) -> Batch:
            epoch, position = divmod(step, per_epoch)
            indices = order(order_seed, epoch, len(self.shards))[position * batch_size :][:batch_size]
            return self.batch(indices, epoch % self.views)

        return _ahead(prepare, start, stop)

    def in_order(self, batch_size: int, view: int | None) -> Iterator[Batch]:
        """All pairs once, in the order of the shards."""
        parts = range(0, len(self.shards), batch_size)
        indices = [np.arange(i, min(i + batch_size, len(self.shards))) for i in parts]
        return _ahead(lambda k: self.batch(indices[k], view), 0, len(indices))


def _ahead(prepare: Callable[[int], Batch], start: int, stop: int) -> Iterator[Batch]:
    """`prepare(start)`, ..., `prepare(stop - 1)`, each begun a few steps before it is asked for."""
    with ThreadPoolExecutor(1, initializer=lambda: torch.set_num_threads(1)) as pool:
        waiting = [pool.submit(prepare, step) for step in range(start, min(start + AHEAD, stop))]
        for step in range(start, stop):
            ready = waiting.pop(0)
            if step + AHEAD < stop:
                waiting.append(pool.submit(prepare, step + AHEAD))
            yield ready.result()
