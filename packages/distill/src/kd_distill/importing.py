"""Embeddings that another program computed, as the cache of a teacher that is not here."""

import hashlib
from pathlib import Path

import numpy as np

from kd_distill.building import build
from kd_distill.cache import Block, CacheInfo
from kd_distill.config import Data
from kd_distill.formats import open_pairs
from kd_distill.reading import read_array
from kd_distill.teaching import CROP_SEED, ROWS, cache_folder


def import_cache(data: Data, name: str, image: Path, text: Path | None, scale: float, bias: float = 0.0) -> Path:
    """Write the cache of teacher `name` from arrays; returns its folder.

    Args:
        data: The training pairs. Whole images only (`views` 1, `crop_area` 1): nobody can embed other crops afterwards.
        name: The teacher, `teacher-<id>`.
        image: `.npy` of floats (pairs, d), in the order of the shards. Rows are normalised when they are read.
        text: The same of the captions; None leaves the cache without them, which serves `fd_image` alone.
        scale: What the teacher multiplies its cosines with (only `ckd` reads it).
        bias: What it adds to them (SigLIP).

    Raises:
        ValueError: If arrays and pairs do not fit, a row is zero or not finite, or `data` asks for crops.
        FileNotFoundError: If a file is missing.
    """
    if data.views != 1 or data.crop_area != 1:
        raise ValueError(
            "Imported embeddings are of whole images: expected data.views 1 and data.crop_area 1.0, "
            f"got {data.views} and {data.crop_area}."
        )
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"Expected a positive scale, got {scale}.")
    shards = open_pairs(data.train, data.index, data.network)
    arrays = [_read(file, len(shards)) for file in (image, text) if file is not None]
    if arrays[0].shape != arrays[-1].shape:
        raise ValueError(
            f"Expected arrays of one width, got {arrays[0].shape[1]} (images), {arrays[-1].shape[1]} (text)."
        )
    info = CacheInfo(
        teacher={"schema": "kd-ref/1", "kind": "teacher", "name": name, "sha256": _digest(arrays, scale)},
        preprocessing=None,
        tokenizer=None,
        precision="fp32",
        width=arrays[0].shape[1],
        scale=scale,
        bias=bias,
        text=text is not None,
        grid=None,
        patch_width=None,
        patch_layer=None,
        data_digest=shards.digest,
        pairs=len(shards),
        views=1,
        crop_area=data.crop_area,
        crop_seed=CROP_SEED,
        rows=ROWS,
    )

    def rows(block: Block) -> dict[str, np.ndarray]:
        kind, array = ("text", arrays[1]) if block.view is None else ("image", arrays[0])
        return {block.file(kind): array[block.start : block.stop]}

    folder = cache_folder(data, name)
    build(folder, info, rows, replace=True)
    return folder


def _read(file: Path, pairs: int) -> np.ndarray:
    """Unit rows (pairs, d) in float32."""
    if not file.is_file():
        raise FileNotFoundError(f"Expected embeddings in {file}, found no such file.")
    array = read_array(file)
    if array.ndim != 2 or len(array) != pairs or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{file}: expected floats of shape ({pairs}, d), a row a pair; got {array.dtype} {array.shape}."
        )
    norms = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    if bad := np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0))).tolist():
        raise ValueError(f"{file}: {len(bad)} rows are zero or not finite, the first of them row {bad[0]}.")
    return (array / norms).astype(np.float32)


def _digest(arrays: list[np.ndarray], scale: float) -> str:
    whole = hashlib.sha256(repr(scale).encode())
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()
