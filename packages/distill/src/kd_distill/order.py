"""The order of the data: which pair stands at a place of the training, computed for that place alone.

Sample number g (counted from the beginning of the training, over all ranks) is a function of (seed, g). There is no
list to shuffle, nothing to replay and no state: to resume at step s is to ask for numbers s*B and up. Within an epoch
every pair comes exactly once (a part of a mix: exactly as often as the mix says); numbers run on over the border of an
epoch, so that no pair is dropped and the batch there holds the end of one epoch and the beginning of the next.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt64

CHUNK = 512  # neighbours in storage that stay together while chunks are shuffled
WINDOW = 64  # chunks whose pairs are shuffled among each other: 32,768 pairs are read from 64 stretches of the files
STRATUM = 4096  # draws within which every part of a mix has its share
ROUNDS = 4
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
NUMBERS = tuple(np.uint64(n * 0x9E3779B97F4A7C15 % 2**64) for n in range(1, 2 * ROUNDS + 1))  # one a half round

Positions = Int64[np.ndarray, "b"]
Words = UInt64[np.ndarray, "b"]


@dataclass(frozen=True)
class Order:
    """The order of a training over one or more parts that are stored one after the other.

    Args:
        seed: Of the order.
        sizes: Pairs in each part.
        draws: Pairs of each part in one epoch. Over epochs a part is walked through pass by pass: none of its pairs
            comes an (n+1)-th time before all have come n times.
    """

    seed: int
    sizes: tuple[int, ...]
    draws: tuple[int, ...]

    def __len__(self) -> int:
        """Samples in one epoch."""
        return sum(self.draws)

    def __call__(self, numbers: Positions) -> tuple[Positions, Positions]:
        """(index, pass) of each sample number: which pair, and how often its part had been shown in full before."""
        epochs, positions = np.divmod(np.asarray(numbers, np.int64), len(self))
        indices, passes = np.empty_like(positions), np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            parts, ordinals = self._interleave(int(epoch), positions[here])
            ordinals += epoch * np.asarray(self.draws)[parts]
            indices[here], passes[here] = self._lookup(parts, ordinals)
        return indices, passes

    def _lookup(self, parts: Positions, ordinals: Positions) -> tuple[Positions, Positions]:
        """What the `ordinals`-th draws of `parts` are."""
        indices = np.empty_like(ordinals)
        passes, places = np.divmod(ordinals, np.asarray(self.sizes)[parts])
        starts = np.cumsum([0, *self.sizes])
        for part, number in np.unique(np.stack([parts, passes]), axis=1).T:
            here = (parts == part) & (passes == number)
            indices[here] = starts[part] + shuffled(
                places[here], self.sizes[part], _key(self.seed, int(number), int(part))
            )
        return indices, passes

    def _interleave(self, epoch: int, positions: Positions) -> tuple[Positions, Positions]:
        """(part, how many draws of that part came before in the epoch) at each position.

        The epoch is cut into strata. Stratum j holds draws floor(j m / J) to floor((j+1) m / J) of a part that has m
        of them in the J strata of the epoch, in a keyed order.
        """
        if len(self.draws) == 1:
            return np.zeros_like(positions), positions.copy()
        draws, total = np.asarray(self.draws), len(self)
        strata = -(-total // STRATUM)

        def before(j: np.ndarray) -> np.ndarray:
            return j[..., None] * draws // strata

        j = np.minimum(positions * strata // total, strata - 1)
        j -= before(j).sum(-1) > positions  # rounding down moves a border by less than one place a part
        while (late := before(j + 1).sum(-1) <= positions).any():
            j += late
        first, last = before(j), before(j + 1)
        size, inner = (last - first).sum(-1), positions - first.sum(-1)
        key = _mix(j.astype(np.uint64) * GOLDEN + _key(self.seed, epoch, len(self.draws)))
        slot = _permute(inner, size, key)
        ends = np.cumsum(last - first, axis=-1)
        part = (slot[:, None] >= ends).sum(-1)
        rows = np.arange(len(slot))
        return part, first[rows, part] + slot - (ends - (last - first))[rows, part]


def shuffled(positions: Positions, n: int, key: int, *, chunk: int = CHUNK, window: int = WINDOW) -> Positions:
    """What stands at `positions` of a keyed order of range(n): an exact bijection, O(1) each.

    Chunks of `chunk` neighbours are permuted, then the members of each `window` chunks in a row among each other. Sets
    of no more than one window are permuted as a whole.
    """
    span = chunk * window
    if n <= span:
        return _permute(positions, np.full_like(positions, n), np.full(len(positions), key, np.uint64))
    places = (positions + key % n) % n  # so that the set's last, short chunk does not always end the epoch
    windows = places // span
    size = np.minimum(span, n - windows * span)
    inner = windows * span + _permute(
        places - windows * span, size, _mix(windows.astype(np.uint64) * GOLDEN + np.uint64(key))
    )
    chunks, rest = np.divmod(inner, chunk)
    whole = chunks < n // chunk
    count = np.full(int(whole.sum()), n // chunk)
    chunks[whole] = _permute(chunks[whole], count, np.full(len(count), key ^ 1, np.uint64))
    return chunks * chunk + rest


def _key(seed: int, epoch: int, part: int) -> int:
    words = [seed, zlib.crc32(b"order"), epoch, part]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def _permute(x: Positions, n: Positions, key: Words) -> Positions:
    """A keyed bijection of range(n), each element with its own n and key.

    A Feistel network on the smallest rectangle a x b that holds n, walked on until it comes back into range(n) (Black
    and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002).
    """
    out = x.astype(np.int64)
    todo = np.arange(len(out))
    while len(todo):
        out[todo] = _rounds(out[todo], n[todo], key[todo])
        todo = todo[out[todo] >= n[todo]]
    return out


def _rounds(x: Positions, n: Positions, key: Words) -> Positions:
    b = np.sqrt(n).astype(np.int64) + 1
    a = -(-n // b)
    left, right = np.divmod(x, b)
    for number in range(ROUNDS):
        left = (left + _hash(right, key, 2 * number) % a) % a
        right = (right + _hash(left, key, 2 * number + 1) % b) % b
    return left * b + right


def _hash(x: Positions, key: Words, number: int) -> Positions:
    """31 bits of x, key and round number."""
    words = _mix(_mix(x.astype(np.uint64) + key) + NUMBERS[number])
    return (words >> np.uint64(33)).astype(np.int64)


def _mix(words: Words) -> Words:
    """The finaliser of splitmix64: a bijection of 64-bit words."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
