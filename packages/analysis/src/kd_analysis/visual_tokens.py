"""Visual tokens of VLMs in the caches that kd-vlm and kd-evalsuite share: for what is there, no tower runs.

Everything is computed from tokens of the cache's precision, whether they stood there or were computed now. See
contract/README.md, "Caches of visual tokens".
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kd_analysis.vision_cache import Precision, VisionCache, as_float32, as_raw, caches_of
from kd_analysis.vlms import VlmEncoder

BATCH = 256

log = logging.getLogger(__name__)
Keep = Callable[[str, list[str], Float[np.ndarray, "b ..."]], None]


class VisualTokens:
    """The tokens of one VLM's tower before its projector, by image.

    Args:
        root: Folder of the caches.
        encoder: Whose tower and preprocessing they are of.
        files: For each image's id, the sha256 of the bytes of files that hold it.
        precision: Of the tokens.
        keep: Told (tap, images, rows) of what is computed from them.
    """

    def __init__(
        self, root: Path, encoder: VlmEncoder, files: Mapping[str, Collection[str]], precision: Precision, keep: Keep
    ) -> None:
        self.root, self.encoder, self.files, self.precision, self.keep = root, encoder, files, precision, keep
        self.about = encoder.about()
        self.cache = VisionCache.find(root, self.about, precision)
        self.lacking: dict[str, set[str]] = {}
        if self.cache is None and (others := sorted(caches_of(root, self.about))):
            log.warning(
                "%s has tokens of this tower in %s, none in %s; --feature-precision %s (analysis.feature_precision) "
                "takes those.", root, " and ".join(others), precision, others[0],
            )  # fmt: skip

    def give(self, wanted: Mapping[str, Collection[str]]) -> set[str]:
        """Keep what the cached tokens give at the taps for their images; returns the images whose tokens it lacks."""
        places = {image: place for image in set().union(*wanted.values()) if (place := self._place(image))}
        for images, tokens in self._read(places):
            self._tell(images, tokens, wanted)
        self.lacking = {tap: lacking for tap, images in wanted.items() if (lacking := set(images) - set(places))}
        return set().union(*self.lacking.values())

    def take(self, images: Sequence[str], tokens: Float[np.ndarray, "b t w"]) -> None:
        """Add tokens that the tower gave, under a file that is known to hold their image; keep what they give."""
        raw = as_raw(torch.from_numpy(tokens), self.precision)
        if self.cache is None:
            _, n, width = tokens.shape
            self.cache = VisionCache.create(self.root, self.about, tokens=n, width=width, precision=self.precision)
        with self.cache.writing():
            rows = {min(self.files[image]): row for row, image in enumerate(images)}
            if missing := self.cache.missing(list(rows)):
                self.cache.append(missing, raw[[rows[digest] for digest in missing]])
        self._tell(images, as_float32(raw), self.lacking)

    @torch.inference_mode()
    def _tell(
        self, images: Sequence[str], tokens: Float[Tensor, "b t w"], wanted: Mapping[str, Collection[str]]
    ) -> None:
        for tap, rows in self.encoder.at(tokens, list(wanted)).items():
            mine = [k for k, image in enumerate(images) if image in wanted[tap]]
            if mine:
                self.keep(tap, [images[k] for k in mine], rows.cpu().numpy()[mine])

    def _place(self, image: str) -> tuple[int, int] | None:
        """Where the tokens of an image stand, in a shard that is what was written."""
        for digest in sorted(self.files[image]) if self.cache else ():
            place = self.cache.index.get(bytes.fromhex(digest))  # type: ignore[union-attr]
            if place and self._sound(place[0]):
                return place
        return None

    def _sound(self, shard: int) -> bool:
        assert self.cache is not None  # noqa: S101  a place was found in it
        known = shard in self.cache.checked
        if not (sound := self.cache.sound(shard)) and not known:
            log.warning("A shard of %s is damaged; its images are read again.", self.cache.folder)
        return sound

    def _read(self, places: Mapping[str, tuple[int, int]]) -> Iterator[tuple[list[str], Float[Tensor, "b t w"]]]:
        ordered = sorted(places, key=lambda image: places[image])
        for start in range(0, len(ordered), BATCH):
            images = ordered[start : start + BATCH]
            shards = self.cache.shards if self.cache else []
            yield images, as_float32(np.stack([shards[places[i][0]].tokens[places[i][1]] for i in images]))
