"""Visual tokens of every distinct picture, computed once: the tower is frozen, so training never runs it again.

Small sets stay in memory. Larger ones go to a cache on disk that both stages, all runs, evaluation and CKA can share.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kd_vlm.encoder import Encoder, visual_tokens
from kd_vlm.pictures import BLANK, decode_image
from kd_vlm.problems import BadSampleError
from kd_vlm.vision_cache import RAW, Precision, VisionCache, as_float32, as_raw, file_digest_of, tower_digest

SHARD_BYTES = 1 << 28  # of a shard on disk, and so what a kill can cost


@dataclass(frozen=True)
class FeatureCache:
    """Visual tokens of pictures, in memory or mapped.

    Attributes:
        parts: Arrays (n, p, w); float32, float16, or bfloat16's bits in uint16.
        index: The part and the row of each picture.
    """

    parts: Sequence[np.ndarray]
    index: Mapping[Path, tuple[int, int]]

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens of a picture and their width."""
        n_tokens, width = self.parts[0].shape[1:]
        return int(n_tokens), int(width)

    def of(self, paths: Sequence[Path]) -> Tensor | None:
        """The tokens (len(paths), p, w) of these pictures in float32, None for no picture."""
        if not paths:
            return None
        rows = np.stack([self.parts[part][row] for part, row in (self.index[path] for path in paths)])
        return as_float32(rows)

    def sample(self, limit: int = 1 << 30) -> np.ndarray:
        """All tokens (n, p, w) in float32, or as many of them, evenly spread, as `limit` bytes hold."""
        places = list(self.index.values())
        most = max(1, limit // (4 * int(np.prod(self.shape))))
        chosen = places[:: -(-len(places) // most)]
        return as_float32(np.stack([self.parts[part][row] for part, row in chosen])).numpy()


def cache_features(
    encoder: Encoder,
    paths: Sequence[Path],
    *,
    root: Path,
    memory_limit: int,
    on_batch: Callable[[int], None],
    precision: Precision = "fp32",
    batch_size: int = 64,
    workers: int = 1,
    device: str = "cpu",
) -> FeatureCache:
    """Run the tower over those of `paths` that it has not yet seen.

    Args:
        encoder: The frozen tower and its preprocessing.
        paths: Distinct pictures.
        root: Folder of the caches on disk, one for each tower, preprocessing, feature choice, precision and device.
        memory_limit: Sets of fewer bytes in float32 are kept in memory, and nothing is written.
        on_batch: Called with the number of pictures done since the last call.
        precision: Of what is kept, in memory too, so that a result does not depend on where. Reading gives float32.
        batch_size: Pictures in one forward.
        workers: Threads that decode.
        device: Where the tower runs.

    Raises:
        ValueError: If a picture does not decode, or tokens overflow fp16.
        IntegrityError: If a shard on disk is not what was written.
    """
    shape = (len(paths), encoder.n_tokens, encoder.width)
    run = _Tower(encoder, batch_size, workers, device)
    if int(np.prod(shape)) * 4 <= memory_limit:
        rows = np.empty(shape, dtype=np.float32)
        for start, tokens in run.over(paths):
            rows[start : start + len(tokens)] = as_float32(as_raw(tokens, precision)).numpy()
            on_batch(len(tokens))
        return FeatureCache([rows], {path: (0, i) for i, path in enumerate(paths)})
    of, shape_of_one = about(encoder, device), {"tokens": encoder.n_tokens, "width": encoder.width}
    cache = VisionCache.create(root, of, **shape_of_one, precision=precision)
    digests = picture_digests(paths, workers)
    if cache.missing(digests):
        with cache.writing():
            _extend(cache, dict(zip(digests, paths, strict=True)), run, on_batch)
    places = [cache.index[bytes.fromhex(digest)] for digest in digests]
    return FeatureCache([shard.tokens for shard in cache.shards], dict(zip(paths, places, strict=True)))


def about(encoder: Encoder, device: str = "cpu") -> dict[str, Any]:
    """What the tokens are a function of besides the picture: weights, preprocessing, feature choice.

    Where it is no CPU, the kind of device too: it rounds otherwise, and a run must not depend on what stood there.
    """
    kind = torch.device(device).type
    preprocessing = {key: value for key, value in encoder.processor.to_dict().items() if value is not None}
    return {
        "tower_sha256": tower_digest(encoder.tower),
        "preprocessing": preprocessing,
        "feature": {"kind": encoder.kind, "layer": encoder.layer, "first": encoder.first, "size": encoder.size},
        **({} if kind == "cpu" else {"device": kind}),
    }


def picture_digests(paths: Sequence[Path], workers: int = 1) -> list[str]:
    """The sha256 of each file's bytes; that of nothing for the grey picture."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda path: _digest(path), paths))


def _digest(path: Path) -> str:
    return hashlib.sha256(BLANK.encode()).hexdigest() if str(path) == BLANK else file_digest_of(path)


def _extend(cache: VisionCache, pictures: Mapping[str, Path], run: "_Tower", on_batch: Callable[[int], None]) -> None:
    missing = cache.missing(list(pictures))
    on_batch(len(pictures) - len(missing))
    raw = RAW[cache.precision][1]
    per_shard = max(1, SHARD_BYTES // (int(np.prod(cache.shape)) * np.dtype(raw).itemsize))
    held: list[np.ndarray] = []
    done = n_held = 0
    for _, tokens in run.over([pictures[digest] for digest in missing]):
        held.append(as_raw(tokens, cache.precision))
        n_held += len(tokens)
        on_batch(len(tokens))
        if n_held >= per_shard or done + n_held == len(missing):
            cache.append(missing[done : done + n_held], np.concatenate(held))
            done, n_held, held = done + n_held, 0, []


@dataclass(frozen=True)
class _Tower:
    """The tower and its preprocessing; the next batch is decoded while one is computed."""

    encoder: Encoder
    batch_size: int
    workers: int
    device: str

    def over(self, paths: Sequence[Path]) -> Iterator[tuple[int, Tensor]]:
        """The place of each batch's first picture, and the batch's tokens."""
        starts = range(0, len(paths), self.batch_size)
        self.encoder.tower.to(self.device)
        try:
            with ThreadPoolExecutor(self.workers) as decoding, ThreadPoolExecutor(1) as ahead:

                def load(start: int) -> Tensor:
                    return self._loaded(paths[start : start + self.batch_size], decoding)

                following = [ahead.submit(load, start) for start in starts[:1]]
                for start in starts:
                    pixels, then = following.pop().result(), start + self.batch_size
                    following += [ahead.submit(load, then)] if then in starts else []
                    yield start, visual_tokens(self.encoder, pixels.to(self.device)).cpu()
        finally:
            self.encoder.tower.to("cpu")

    def _loaded(self, batch: Sequence[Path], decoding: ThreadPoolExecutor) -> Tensor:
        shares = [batch[i :: self.workers] for i in range(min(self.workers, len(batch)))]
        pixels = list(decoding.map(self._pixels, shares))
        whole = torch.empty(len(batch), *pixels[0].shape[1:])
        for i, part in enumerate(pixels):
            whole[i :: self.workers] = part
        return whole

    def _pixels(self, paths: Sequence[Path]) -> Tensor:
        try:
            pictures = [decode_image(path) for path in paths]
        except BadSampleError as error:
            hint = "Run `vlm validate` and name its folder as the manifest of these conversations; `bad` then applies."
            raise BadSampleError(error.cause, f"{error} {hint}") from None
        pixels: Tensor = self.encoder.processor(pictures, return_tensors="pt")["pixel_values"]
        return pixels
