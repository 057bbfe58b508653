"""Features of many encoders over one stream of images: decoded once, prepared once for each way of looking."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kd_analysis import towers
from kd_analysis.folders import is_vlm

BATCH = 256

Keep = Callable[[str, str, list[str], Float[np.ndarray, "b ..."]], None]


class Encoder(Protocol):
    """What is read: `towers.ClipEncoder` or `vlms.VlmEncoder`."""

    @property
    def look(self) -> str: ...

    def prepare(self) -> Callable[[Image.Image], Tensor]: ...

    def to(self, device: str) -> None: ...

    def layers(self) -> list[str]: ...

    def read(self, images: Tensor, taps: Collection[str]) -> dict[str, Tensor]: ...


def load(folder: Path, heads: Path | None = None) -> Encoder:
    """The encoder of an open_clip folder or of a VLM's folder."""
    if is_vlm(folder):
        from kd_analysis import vlms

        return vlms.load(folder)
    return towers.load(folder, heads)


@torch.inference_mode()
def extract(
    encoders: Mapping[str, Encoder],
    wanted: Mapping[str, Mapping[str, Collection[str]]],
    pictures: Iterable[tuple[str, Image.Image]],
    keep: Keep,
    *,
    device: str = "cpu",
    batch: int | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
) -> None:
    """Read every encoder at its taps, in float32 (no TF32).

    Args:
        encoders: By name.
        wanted: For each name, its taps and the ids that are wanted at them.
        pictures: Id and RGB image, each once.
        keep: Told (name, tap, ids, rows) for each batch.
        device: Of torch.
        batch: Images at a time; `BATCH` if not given.
        on_batch: Told after each batch how many (encoder, image) pairs it did.
    """
    looks: dict[str, list[str]] = {}
    for name in wanted:
        encoders[name].to(device)
        looks.setdefault(encoders[name].look, []).append(name)
    prepare = {look: encoders[names[0]].prepare() for look, names in looks.items()}
    cudnn = torch.backends.cudnn
    with ThreadPoolExecutor() as pool, cudnn.flags(enabled=cudnn.enabled, allow_tf32=False):  # its default is off
        for some in _batches(pictures, batch or BATCH):
            for look, names in looks.items():
                asked = {n: [i for i, _ in some if any(i in ids for ids in wanted[n].values())] for n in names}
                needed = {i for ids in asked.values() for i in ids}
                if not needed:
                    continue
                chosen = [(i, image) for i, image in some if i in needed]
                tensors = dict(
                    zip([i for i, _ in chosen], pool.map(prepare[look], [p for _, p in chosen]), strict=True)
                )
                for name in names:
                    _read(encoders[name], name, asked[name], wanted[name], tensors, keep, device)
                    on_batch(len(asked[name]))


def _read(
    encoder: Encoder,
    name: str,
    ids: list[str],
    taps: Mapping[str, Collection[str]],
    tensors: Mapping[str, Tensor],
    keep: Keep,
    device: str,
) -> None:
    if not ids:
        return
    pixels = torch.stack([tensors[i] for i in ids]).to(device).contiguous(memory_format=torch.channels_last)
    for tap, features in encoder.read(pixels, list(taps)).items():
        rows = [k for k, i in enumerate(ids) if i in taps[tap]]
        if rows:
            keep(name, tap, [ids[k] for k in rows], features.float().cpu().numpy()[rows])


def _batches(pictures: Iterable[tuple[str, Image.Image]], size: int) -> Iterator[list[tuple[str, Image.Image]]]:
    some: list[tuple[str, Image.Image]] = []
    for one in pictures:
        some.append(one)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
