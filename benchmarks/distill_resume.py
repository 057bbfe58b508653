"""The first batch of a resumed training over many pairs: from opening the index to pixels and token ids.

    python benchmarks/distill_resume.py --pairs 10000000

The index is made up (a thousand shards that are one file, pictures repeated), in the size and form of a real one, and
built by the package's own builder. Times are wall time, the least of several rounds: what a user waits for, without
the imports. Against it: what a list shuffled for each epoch costs, alone.
"""

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from figures import Figure, show
from kd_distill.index import Row, open_index, states
from kd_distill.order import Order
from kd_distill.pairs import Pairs
from kd_distill.shards import PairShards
from kd_distill.views import Preprocessing, stream
from PIL import Image

SHARDS, PICTURES = 1000, 64
BATCH = 256
POSITIONS = (0.0, 0.5, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--scratch", type=Path, help="folder with room for about 100 bytes a pair; default: a temporary one"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        _run(Path(scratch), options.pairs, options.rounds)


def _run(scratch: Path, pairs: int, rounds: int) -> None:
    shards = _write_shards(scratch / "pairs")
    start = time.perf_counter()
    with tarfile.open(shards[0]) as tar:
        places = [(m.offset_data, m.size) for m in tar if m.name.endswith("jpg")]
    index = open_index(scratch / "index", states(shards, scratch / "pairs"), "shards", lambda: _made_up(pairs, places))
    size = sum(f.stat().st_size for f in index.folder.iterdir())
    print(f"index of {pairs} pairs in {SHARDS} shards: {size / 1e6:.0f} MB, ", end="")
    print(f"built in {time.perf_counter() - start:.0f} s; load {os.getloadavg()[0]:.1f}")
    _first_batch(scratch, 0, 8)  # imports of the decoder
    total = pairs // BATCH * 32  # steps of 32 epochs
    slowest, list_seconds = 0.0, float("inf")
    for share in POSITIONS:
        step, opened, first = int(total * share), float("inf"), float("inf")
        for _ in range(rounds):
            start = time.perf_counter()
            stream(0, "list", step).permutation(pairs)
            list_seconds = min(list_seconds, time.perf_counter() - start)
            one, whole = _first_batch(scratch, step, BATCH)
            opened, first = min(opened, one), min(first, whole)
        print(f"resumed at {share:.0%} of 32 epochs: index open after {opened:.3f} s, ", end="")
        print(f"first batch of {BATCH} after {first:.3f} s")
        slowest = max(slowest, first)
    bound = _bound(scratch, pairs)
    print(f"a shuffled list of one epoch alone: {list_seconds:.3f} s and {8 * pairs / 1e6:.0f} MB; ", end="")
    print(f"a place of ours: {_place(pairs):.1f} us")
    show(
        Figure(
            f"first batch of {BATCH} of a resumed training, {pairs} pairs, the slowest of its places",
            slowest,
            "s",
            at_most=1,
            limit=bound,
            limit_of="reading and decoding its images in one thread",
        )
    )


def _write_shards(folder: Path) -> list[Path]:
    """One shard of smooth 256-pixel pictures under a thousand names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for number in range(PICTURES):
            small = Image.fromarray(rng.integers(0, 255, (43, 64, 3), np.uint8))
            out = io.BytesIO()
            small.resize((384, 256), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
            for suffix, content in (("jpg", out.getvalue()), ("txt", b"made up")):
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for number in range(1, SHARDS):
        os.link(folder / "00000.tar", folder / f"{number:05d}.tar")
    return sorted(folder.glob("*.tar"))


def _made_up(pairs: int, places: list[tuple[int, int]]) -> Iterator[Row]:
    each = -(-pairs // SHARDS)
    for number in range(pairs):
        offset, size = places[number % PICTURES]
        yield Row(number // each, offset, size, f"{number:09d}", f"a made up caption of the usual length, {number}")


def _tokenize(captions: list[str]) -> torch.Tensor:
    return torch.tensor([[len(caption)] for caption in captions])


def _first_batch(scratch: Path, step: int, batch: int) -> tuple[float, float]:
    """Seconds until the index is open, and until the first batch is there."""
    start = time.perf_counter()
    source = PairShards(scratch / "pairs", scratch / "index")
    opened = time.perf_counter() - start
    pairs = Pairs(source, Preprocessing(224, (0.5,) * 3, (0.5,) * 3), _tokenize, seed=0, views=8, crop_area=0.9)
    batches = pairs.steps(step, step + 1, batch_size=batch, order_seed=0)
    assert len(next(batches).keys) == batch  # noqa: S101
    return opened, time.perf_counter() - start


def _bound(scratch: Path, pairs: int) -> float:
    """Seconds that a batch costs anyway: reading and decoding its images."""
    from kd_distill.decode import decode

    source = PairShards(scratch / "pairs", scratch / "index")
    indices = Order(0, (pairs,), (pairs,))(np.arange(BATCH))[0].tolist()
    start = time.perf_counter()
    for index in indices:
        decode(source.image(index))
    return time.perf_counter() - start


def _place(pairs: int) -> float:
    order, numbers = Order(0, (pairs,), (pairs,)), np.arange(4096)
    start = time.perf_counter()
    order(numbers)
    return (time.perf_counter() - start) / len(numbers) * 1e6


if __name__ == "__main__":
    main()
