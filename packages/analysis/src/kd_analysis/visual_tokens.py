"""Visual tokens of VLMs in the caches that kd-vlm and kd-evalsuite share: for what is there, no tower runs.

Only caches in float32 are read and written, since similarities are measured in it. See contract/README.md, "Caches of
visual tokens".
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from kd_analysis.vision_cache import Precision, VisionCache
from kd_analysis.vlms import VlmEncoder

BATCH = 256
PRECISION: Precision = "fp32"

log = logging.getLogger(__name__)
Keep = Callable[[str, list[str], Float[np.ndarray, "b ..."]], None]


class VisualTokens:
    """The tokens of one VLM's tower before its projector, by image.

    Args:
        root: Folder of the caches.
        encoder: Whose tower and preprocessing they are of.
        files: For each image's id, the sha256 of the bytes of files that hold it.
    """

    def __init__(self, root: Path, encoder: VlmEncoder, files: Mapping[str, Collection[str]]) -> None:
        self.root, self.encoder, self.files = root, encoder, files
        self.about = encoder.about()
        self.cache = VisionCache.find(root, self.about, PRECISION)

    @torch.inference_mode()
    def give(self, wanted: Mapping[str, Collection[str]], keep: Keep) -> dict[str, set[str]]:
        """What the cache has of the taps' images goes to `keep` (tap, images, rows); returns what it lacks."""
        places = {image: place for image in set().union(*wanted.values()) if (place := self._place(image))}
        for images, tokens in self._read(places):
            for tap, rows in self.encoder.at(torch.from_numpy(tokens), list(wanted)).items():
                mine = [k for k, image in enumerate(images) if image in wanted[tap]]
                if mine:
                    keep(tap, [images[k] for k in mine], rows.numpy()[mine])
        return {tap: lacking for tap, images in wanted.items() if (lacking := set(images) - set(places))}

    def take(self, images: Sequence[str], tokens: Float[np.ndarray, "b t w"]) -> None:
        """Add tokens that the tower gave, under every file that is known to hold their image."""
        if self.cache is None:
            _, n, width = tokens.shape
            self.cache = VisionCache.create(self.root, self.about, tokens=n, width=width, precision=PRECISION)
        with self.cache.writing():
            rows = {min(self.files[image]): row for row, image in enumerate(images)}
            if missing := self.cache.missing(list(rows)):
                self.cache.append(missing, tokens[[rows[digest] for digest in missing]])

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

    def _read(self, places: Mapping[str, tuple[int, int]]) -> Iterator[tuple[list[str], Float[np.ndarray, "b t w"]]]:
        ordered = sorted(places, key=lambda image: places[image])
        for start in range(0, len(ordered), BATCH):
            images = ordered[start : start + BATCH]
            shards = self.cache.shards if self.cache else []
            yield images, np.stack([shards[places[i][0]].tokens[places[i][1]] for i in images])
