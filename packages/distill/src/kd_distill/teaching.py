"""The teachers of a study: their caches made, verified and opened, and the live ones loaded."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kd_distill import doctor
from kd_distill.building import build
from kd_distill.cache import CacheInfo, TeacherCache
from kd_distill.config import Data
from kd_distill.formats import open_pairs
from kd_distill.layers import PatchLayer
from kd_distill.online import BATCH, LiveTeacher, Teachers
from kd_distill.pairs import Pairs
from kd_distill.precision import Precision
from kd_distill.sources import Source
from kd_distill.tokens import Tokenizer
from kd_distill.tracking import IntegrityError, Model, resolve
from kd_distill.views import Preprocessing, stream

log = logging.getLogger(__name__)
CROP_SEED = 0  # crops are one for all cells, so that one cache serves them all
ROWS, FILE_BYTES = 4096, 256 << 20
# 1 - cosine of a row with itself computed again, in another batch or on another device
CLOSE: dict[Precision, float] = {"fp32": 1e-5, "bf16": 1e-3, "fp16": 1e-3}
Progress = Callable[[str, int, int], None]  # (what, done, of)


def cache_folder(data: Data, teacher: str) -> Path:
    """Where the embeddings of a teacher stand."""
    return data.caches / teacher


def make_cache(
    data: Data,
    teacher: Model,
    progress: Progress,
    *,
    patches: PatchLayer | None = None,
    precision: Precision = "fp32",
    part: tuple[int, int] = (1, 1),
    replace: bool = False,
    rows: int = ROWS,
) -> Path | None:
    """Embed every view of every training pair with `teacher`, and every caption.

    Killed and called again it goes on; a complete cache of the same is kept.

    Args:
        data: The pairs, and where caches are.
        teacher: Who embeds.
        progress: Called with the number of files written.
        patches: Where patch tokens are read, if they are kept too.
        precision: Of the teacher's towers.
        part: (i, n), see `build`.
        replace: Put it in the place of a cache of something else.
        rows: Pairs in one file; less where a file of patch tokens would become too large.

    Returns:
        The folder; None while parts of other processes are missing.

    Raises:
        ValueError: If the teacher is not what its name says, or the folder holds a cache of something else.
    """
    doctor.vouch(teacher.name, teacher.path, data.teachers)
    live = LiveTeacher.load(teacher, device=_device(), precision=precision, patches=patches)
    pairs = _seen_by(live, data)
    info = _info(live, pairs, data, rows)
    folder = cache_folder(data, teacher.name)
    complete = build(
        folder,
        info,
        lambda block: live.embed(pairs, block),
        part=part,
        replace=replace,
        progress=lambda done, of: progress(f"{teacher.name}: files of embeddings", done, of),
    )
    return folder if complete else None


def verify_cache(data: Data, name: str, rows: int, teacher: str | Path | None = None) -> tuple[int, int]:
    """Check the sha256 of all files of a cache, and compute some of its rows again.

    Args:
        data: The pairs, and where caches are.
        name: Of the teacher.
        rows: Pairs that are computed again, each in one view.
        teacher: Its folder or reference; None: the one that the cache names.

    Returns:
        Numbers of files and of rows that were checked.

    Raises:
        IntegrityError: If a file isn't as it was written, or a row isn't what the teacher gives.
        ValueError: If the cache is of another teacher, or of other pairs.
    """
    cache = TeacherCache(cache_folder(data, name))
    files = cache.verify()
    if not rows:
        return files, 0
    live = LiveTeacher.load(
        resolve(teacher or cache.info.teacher),
        device=_device(),
        precision=cache.info.precision,
        patches=cache.info.patch_layer,
    )
    pairs = _seen_by(live, data)
    cache.info.refuse_other(_info(live, pairs, data, cache.info.rows).model_dump(mode="json"))
    draw, n = stream(CROP_SEED, "cache-verify", rows), len(pairs.shards)
    for index in np.sort(draw.choice(n, size=min(rows, n), replace=False)):
        view = int(draw.integers(data.views))
        _compare(cache, live, pairs, int(index), view)
    return files, min(rows, n)


def _compare(cache: TeacherCache, live: LiveTeacher, pairs: Pairs, index: int, view: int) -> None:
    at = np.array([index])
    batch = pairs.batch(at, view)
    kept, (image, patches) = cache.rows(at, view), live.images(batch.images)
    found = {"image": (kept.image, image), "text": (kept.text, live.texts(batch.tokens) if cache.has_text else None)}
    found["patches"] = (kept.patches, patches)
    for kind, (stored, again) in found.items():
        if stored is None or again is None:
            continue
        cosine = torch.nn.functional.cosine_similarity(stored.flatten(), again.cpu().flatten(), dim=0).item()
        if not cosine > 1 - CLOSE[live.precision]:
            raise IntegrityError(
                f"{cache.folder}: {kind} of pair {index} ({batch.keys[0]}), view {view}: expected what the teacher "
                f"gives, got a row whose cosine with it is {cosine:.6f}. Make it anew with `distill cache --replace`."
            )


@dataclass(frozen=True)
class Reading:
    """What a student's losses read of its teachers.

    Attributes:
        text: The terms that read captions.
        patches: The terms that read patch tokens.
        patches_if_live: Whether live teachers give patch tokens.
        patch_layer: Where those are read.
    """

    text: Collection[str]
    patches: Collection[str]
    patches_if_live: bool
    patch_layer: PatchLayer

    def refuse_less(self, name: str, cache: TeacherCache) -> None:
        """Raise ValueError if the cache of teacher `name` lacks what a term reads."""
        if self.text and not cache.has_text:
            raise ValueError(
                f"The losses {sorted(self.text)} compare captions; the cache of {name} holds images only. "
                "Import it with --text, or use fd_image."
            )
        if self.patches and cache.info.patch_layer != self.patch_layer:
            raise ValueError(
                f"The losses {sorted(self.patches)} read patch tokens of the layer {self.patch_layer}; the cache of "
                f"{name} has {cache.info.patch_layer or 'none'}. Make it with "
                f"`distill cache --patches {self.patch_layer} --replace`."
            )


def open_teachers(
    data: Data, modes: Mapping[str, str], digest: str, reading: Reading, precision: Precision
) -> Teachers:
    """The teachers of a student.

    Args:
        data: Where caches are, and how pairs are seen.
        modes: Of each teacher, in their order, `cached` or `online`.
        digest: Of the pairs.
        reading: What is read of them.
        precision: Of live teachers.

    Raises:
        FileNotFoundError: If there is no cache, or no such teacher.
        ValueError: If a cache is of something else, or lacks what a term reads.
    """
    expected = {"data_digest": digest, "views": data.views, "crop_area": data.crop_area, "crop_seed": CROP_SEED}
    patches = reading.patch_layer if reading.patches_if_live else None
    members: list[TeacherCache | LiveTeacher] = []
    for name, mode in modes.items():
        if mode == "online":
            model = resolve(f"models:/{name}@candidate")
            doctor.vouch(name, model.path, data.teachers)
            members.append(LiveTeacher.load(model, device=torch.device("cpu"), precision=precision, patches=patches))
            continue
        cache = TeacherCache(cache_folder(data, name))
        if cache.info.teacher["name"] != name:
            raise ValueError(f"Expected a cache of {name}, found one of {cache.info.teacher['name']}.")
        cache.info.refuse_other(expected)
        reading.refuse_less(name, cache)
        members.append(cache)
    return Teachers(members)


def held_out_targets(data: Data, ref: Mapping[str, str]) -> Float[Tensor, "n d"] | None:
    """A teacher's embeddings of the held-out images; None for one of which only embeddings are here."""
    try:
        live = LiveTeacher.load(resolve(ref), device=_device())
    except FileNotFoundError as error:
        log.warning("No cosine and CKA to the teacher during training: %s", error)
        return None
    pairs = _seen_by(live, data, open_pairs(data.val, data.index, data.network))
    return torch.cat([live.images(batch.images)[0] for batch in pairs.in_order(BATCH, None)])


def _seen_by(live: LiveTeacher, data: Data, source: Source | None = None) -> Pairs:
    """Pairs, those of the training where no others are given, as a teacher wants them."""
    return pairs_of(data, source or open_pairs(data.train, data.index, data.network), *live.look)


def pairs_of(data: Data, source: Source, preprocessing: Preprocessing, tokenize: Tokenizer, **more: Any) -> Pairs:
    """The pairs of a source under the parameters `data`, as one model wants them; `more` goes to `Pairs`."""
    return Pairs(
        source,
        preprocessing,
        tokenize,
        seed=CROP_SEED,
        views=data.views,
        crop_area=data.crop_area,
        bad_limit=data.bad_limit,
        workers=data.workers,
        timeout=data.timeout,
        **more,
    )


def _info(live: LiveTeacher, pairs: Pairs, data: Data, rows: int) -> CacheInfo:
    look, info = live.preprocessing, live.info
    if info.grid is not None and info.patch_width is not None:
        rows = min(rows, max(1, FILE_BYTES // (2 * info.grid[0] * info.grid[1] * info.patch_width)))
    fields: dict[str, Any] = {name: getattr(look, name) for name in ("size", "interpolation", "resize_mode")}
    return CacheInfo(
        teacher=live.ref,
        preprocessing=fields | {"mean": list(look.mean), "std": list(look.std)},
        tokenizer=live.tokenize.identity,
        precision=live.precision,
        width=info.width,
        scale=info.scale,
        bias=info.bias,
        text=True,
        grid=info.grid,
        patch_width=info.patch_width,
        patch_layer=info.patch_layer,
        data_digest=pairs.shards.digest,
        pairs=len(pairs.shards),
        views=data.views,
        crop_area=data.crop_area,
        crop_seed=CROP_SEED,
        rows=rows,
    )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
