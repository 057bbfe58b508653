"""Tokenised samples in a few flat arrays: about 5 bytes a token of text, and nothing for the places of pictures."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from kd_vlm.templates import IGNORE, Encoded


class TokenStore(Sequence[Encoded]):
    """Samples as `templates.encode` gives them, made again when they are asked for.

    Attributes:
        lengths: (n) tokens of each sample, those of its pictures among them.
        n_supervised: (n) supervised tokens.
        n_predicted: (n) supervised tokens without a first one, which nothing predicts.
        n_images: (n) pictures.
    """

    def __init__(self, samples: Iterable[Encoded], *, image_id: int, tokens_per_image: int) -> None:
        """Take samples in which each picture is **one** `image_id`; they are given with `tokens_per_image` of them."""
        self.image_id, self.tokens_per_image = image_id, tokens_per_image
        ids, supervised = [np.empty(0, np.int32)], [np.empty(0, bool)]
        for sample in samples:
            ids.append(np.array(sample.ids, np.int32))
            supervised.append(np.array(sample.labels, np.int64) != IGNORE)
        self._ends = np.cumsum([len(row) for row in ids])
        self.n_images = np.array([np.count_nonzero(row == image_id) for row in ids[1:]], np.int64)
        self.n_supervised = np.array([np.count_nonzero(row) for row in supervised[1:]], np.int64)
        self.n_predicted = self.n_supervised - np.array([bool(row[:1].any()) for row in supervised[1:]], np.int64)
        self._ids, self._supervised = np.concatenate(ids), np.concatenate(supervised)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self._ends) + self.n_images * (self.tokens_per_image - 1)

    def digest(self) -> str:
        """A sha256 over the tokens of all samples in order, and which of them are supervised."""
        whole = hashlib.sha256()
        for part in (self._ends.astype(np.int64), self._ids, self._supervised):
            whole.update(part.tobytes())
        return whole.hexdigest()

    def __len__(self) -> int:
        return len(self.n_images)

    @overload
    def __getitem__(self, at: int) -> Encoded: ...
    @overload
    def __getitem__(self, at: slice) -> list[Encoded]: ...
    def __getitem__(self, at: int | slice) -> Encoded | list[Encoded]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(f"{len(self)} samples, asked for {at}.")
        at %= len(self)
        part = slice(self._ends[at], self._ends[at + 1])
        ids = self._ids[part]
        repeats = np.where(ids == self.image_id, self.tokens_per_image, 1)
        labels = np.where(self._supervised[part], ids, IGNORE)
        whole = [tuple(row.repeat(repeats).tolist()) for row in (ids, labels)]
        return Encoded(whole[0], whole[1], int(self.n_images[at]))


def shortened(sample: Encoded, length: int, *, image_id: int, tokens_per_image: int) -> Encoded:
    """The first `length` tokens of a sample whose pictures are one `image_id` each, and count `tokens_per_image`.

    Raises:
        ValueError: If that would cut a picture's tokens off.
    """
    kept = length - sample.n_images * (tokens_per_image - 1)
    if len(sample.ids) <= kept:
        return sample
    if image_id in sample.ids[max(kept, 0) :]:
        raise ValueError(f"{length} tokens would cut the tokens of its pictures off; raise max_length.")
    return Encoded(sample.ids[:kept], sample.labels[:kept], sample.n_images)
