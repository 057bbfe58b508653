"""Visual tokens of every distinct picture, computed once: the tower is frozen, so training never runs it again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd_vlm.encoder import Encoder, visual_tokens
from kd_vlm.pictures import decode_image


@dataclass(frozen=True)
class FeatureCache:
    """Visual tokens (n, p, w) in float32, in memory or memory-mapped, and the row of each picture."""

    rows: np.ndarray
    index: dict[Path, int]

    def of(self, paths: Sequence[Path]) -> Tensor | None:
        """The tokens (len(paths), p, w) of these pictures, None for no picture."""
        if not paths:
            return None
        return torch.from_numpy(self.rows[[self.index[path] for path in paths]])


def cache_features(
    encoder: Encoder,
    paths: Sequence[Path],
    *,
    file: Path,
    memory_limit: int,
    on_batch: Callable[[int], None],
    batch_size: int = 64,
) -> FeatureCache:
    """Run the tower over `paths`.

    Args:
        encoder: The frozen tower and its preprocessing.
        paths: Distinct pictures.
        file: Where the tokens go if they do not fit `memory_limit`; a complete file of an earlier try is used again.
        memory_limit: Largest cache in bytes that is kept in memory.
        on_batch: Called with the number of pictures done since the last call.
        batch_size: Pictures in one forward.

    Raises:
        ValueError: If a picture does not decode.
    """
    index = {path: i for i, path in enumerate(paths)}
    shape = (len(paths), encoder.n_tokens, encoder.width)
    if int(np.prod(shape)) * 4 <= memory_limit:
        rows = np.empty(shape, dtype=np.float32)
        _fill(rows, encoder, paths, batch_size, on_batch)
        return FeatureCache(rows, index)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        mapped = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        _fill(mapped, encoder, paths, batch_size, on_batch)
        mapped.flush()
        partial.replace(file)
    return FeatureCache(np.lib.format.open_memmap(file, mode="r"), index)


def _fill(
    rows: np.ndarray, encoder: Encoder, paths: Sequence[Path], batch_size: int, on_batch: Callable[[int], None]
) -> None:
    for start in range(0, len(paths), batch_size):
        part = paths[start : start + batch_size]
        pixels = encoder.processor([decode_image(path) for path in part], return_tensors="pt")["pixel_values"]
        rows[start : start + len(part)] = visual_tokens(encoder, pixels).numpy()
        on_batch(len(part))
