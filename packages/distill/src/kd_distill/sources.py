"""Where image-text pairs come from: one protocol for all formats, and mixes of several sources."""

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kd_distill.index import LEDGER, Index
from kd_distill.ledger import BadSampleError, Entry, Ledger, refuse_too_many
from kd_distill.tokens import Rows, Tokenizer, open_tokens


class Source(Protocol):
    """Pairs by number. Nothing is decoded here; captions were checked when the index was built.

    Attributes:
        name: For messages.
        parts: (pairs, draws in one epoch) of each part, see `order.Order`.
        digest: Of names, places and captions of all pairs: changes when they do. The bytes of images are not in it.
    """

    name: str
    parts: tuple[tuple[int, int], ...]

    @property
    def digest(self) -> str: ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """What the source calls pair `index`."""

    def caption(self, index: int) -> str:
        """The caption of pair `index`."""

    def tokens(self, tokenize: Tokenizer) -> Rows:
        """The token ids of all captions, see `kd_distill.tokens`."""

    def image(self, index: int) -> bytes:
        """The image file of pair `index`, encoded.

        Raises:
            BadSampleError: If this pair has none.
            OSError: If the storage fails; that is not the pair's fault.
        """

    def reject(self, index: int, bad: BadSampleError) -> None:
        """Write into the ledger that pair `index` cannot be used."""

    def is_rejected(self, index: int) -> bool:
        """Whether the ledger names pair `index`."""

    def counts(self) -> dict[str, int]:
        """Pairs in the ledger by cause."""

    def refuse_too_many(self, limit: float) -> None:
        """Raise TooManyBadError where more than the share `limit` of the pairs, of any part, is in the ledger."""


def epoch_of(source: Source) -> int:
    """Samples in one epoch of a source."""
    return sum(draws for _, draws in source.parts)


class IndexedPairs:
    """A source with an index; formats add where the bytes of an image are.

    Raises:
        FileNotFoundError: If there is no pair at all.
        TooManyBadError: If there are pairs, and none can be used.
    """

    def __init__(self, name: str, index: Index) -> None:
        self.name, self.index, self.ledger = name, index, Ledger(index.folder / LEDGER)
        self.parts: tuple[tuple[int, int], ...] = ((index.pairs, index.pairs),)
        if not index.pairs and len(self.ledger):
            refuse_too_many(self.ledger, name, 0, 0.0)
        if not index.pairs:
            raise FileNotFoundError(f"{name} holds no image with a caption.")

    def __len__(self) -> int:
        return self.index.pairs

    @property
    def digest(self) -> str:
        return self.index.digest

    def key(self, index: int) -> str:
        return self.index.keys.text(index)

    def caption(self, index: int) -> str:
        return self.index.captions.text(index)

    def tokens(self, tokenize: Tokenizer) -> Rows:
        return open_tokens(self.index.folder, tokenize, self.caption, len(self))

    @abstractmethod
    def image(self, index: int) -> bytes: ...

    @abstractmethod
    def file(self, index: int) -> str:
        """The file that the image of pair `index` is in."""

    def reject(self, index: int, bad: BadSampleError) -> None:
        self.ledger.add(Entry(self.file(index), self.key(index), bad.cause, bad.detail, index))

    def is_rejected(self, index: int) -> bool:
        return index in self.ledger.rows

    def counts(self) -> dict[str, int]:
        return self.ledger.counts

    def refuse_too_many(self, limit: float) -> None:
        refuse_too_many(self.ledger, self.name, len(self), limit)


class Mix:
    """Several sources one after the other, each shown `epochs` times in one epoch of the mix.

    A source of n pairs gives exactly round(epochs * n) draws to each epoch, spread evenly over it (order.STRATUM).
    Half an epoch shows half of its pairs in one epoch of the mix and the other half in the next.
    """

    def __init__(self, sources: Sequence[Source], epochs: Sequence[float]) -> None:
        self.sources = tuple(sources)
        self.name = " + ".join(s.name for s in sources)
        self.parts = tuple((len(s), round(len(s) * e)) for s, e in zip(sources, epochs, strict=True))
        if empty := [s.name for s, (_, draws) in zip(sources, self.parts, strict=True) if not draws]:
            raise ValueError(f"{', '.join(empty)}: `epochs` is so small that no pair of it is drawn in an epoch.")
        self._starts = np.cumsum([0, *(len(s) for s in sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def digest(self) -> str:
        lines = [f"{s.digest} {draws}\n" for s, (_, draws) in zip(self.sources, self.parts, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _at(self, index: int) -> tuple[Source, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.sources[part], index - int(self._starts[part])

    def key(self, index: int) -> str:
        source, row = self._at(index)
        return source.key(row)

    def caption(self, index: int) -> str:
        source, row = self._at(index)
        return source.caption(row)

    def tokens(self, tokenize: Tokenizer) -> Rows:
        return _Joined([source.tokens(tokenize) for source in self.sources], self._starts)

    def image(self, index: int) -> bytes:
        source, row = self._at(index)
        return source.image(row)

    def reject(self, index: int, bad: BadSampleError) -> None:
        source, row = self._at(index)
        source.reject(row, bad)

    def is_rejected(self, index: int) -> bool:
        source, row = self._at(index)
        return source.is_rejected(row)

    def counts(self) -> dict[str, int]:
        return dict(sum((Counter(s.counts()) for s in self.sources), Counter()).most_common())

    def refuse_too_many(self, limit: float) -> None:
        for source in self.sources:
            source.refuse_too_many(limit)


class _Joined:
    """Rows of several parts under the numbers of a mix."""

    def __init__(self, parts: Sequence[Rows], starts: np.ndarray) -> None:
        self._parts, self._starts = parts, starts

    def __getitem__(self, index: int) -> np.ndarray:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part][index - int(self._starts[part])]
