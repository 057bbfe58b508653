"""Views of images: crop boxes that depend on (seed, view, index) alone, and what a model's preprocessing makes of them.

A box is drawn on the original, relative to its sides, and each model renders it in its own size and normalisation:
student and teacher see the same crop, live or through a cache.
"""

import functools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Box = tuple[float, float, float, float]  # top, left, height, width, relative to the image
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
BLOCK = 4096
LOG_RATIO = math.log(4 / 3)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def stream(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A generator that depends on all of its arguments and on nothing else."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *indices])


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The permutation of `n` samples in this epoch."""
    return stream(seed, "order", epoch).permutation(n)


@functools.lru_cache(maxsize=256)
def _block(seed: int, view: int, block: int, smallest: float) -> np.ndarray:
    """Boxes (top, left, height, width) relative to the image, for the samples of one block: shape (BLOCK, 4)."""
    draw = stream(seed, "crop", view, block).random((BLOCK, 4))
    area = smallest + (1 - smallest) * draw[:, 0]
    ratio = np.exp(LOG_RATIO * (2 * draw[:, 1] - 1))
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    return np.stack([(1 - height) * draw[:, 2], (1 - width) * draw[:, 3], height, width], axis=1)


def crop_box(seed: int, view: int, index: int, smallest: float) -> Box:
    """(top, left, height, width) of view `view` of sample `index`, relative to the image.

    Covers a share of the area uniform in [smallest, 1] with an aspect ratio in [3/4, 4/3], clipped to the image.
    With `smallest` 1 it is the whole image, whatever the seed.
    """
    if smallest == 1:
        return WHOLE
    top, left, height, width = _block(seed, view, index // BLOCK, smallest)[index % BLOCK]
    return float(top), float(left), float(height), float(width)


def in_pixels(box: Box, width: int, height: int) -> tuple[float, float, float, float]:
    """(left, upper, right, lower) in pixels, as PIL wants it."""
    top, left, tall, wide = box
    return left * width, top * height, min(1.0, left + wide) * width, min(1.0, top + tall) * height


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its images.

    Args:
        size: Side in pixels.
        mean: Of the three channels, on a scale of 0 to 1.
        std: The same.
        interpolation: Of the resizing, always with antialiasing.
        resize_mode: What is seen of an image without a crop box: its central square (`shortest`, CLIP), or all of it
            brought to the square (`squash`, SigLIP). A crop box is brought to the square for every model.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"

    def __call__(self, images: Sequence[Image.Image], boxes: Sequence[Box | None]) -> UInt8[Tensor, "b 3 size size"]:
        """Each image's box resized to the square; without a box, what the model evaluates on (`resize_mode`)."""
        out = np.empty((len(images), self.size, self.size, 3), np.uint8)
        for row, image, box in zip(out, images, boxes, strict=True):
            pixels = in_pixels(box, image.width, image.height) if box else self.whole(image.width, image.height)
            row[:] = np.asarray(image.resize((self.size, self.size), FILTERS[self.interpolation], box=pixels))
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def whole(self, width: int, height: int) -> tuple[float, float, float, float]:
        """(left, upper, right, lower) in pixels of what the model sees of a whole image.

        The central square is where open_clip's transform puts it: the shorter side is resized to `size`, the longer
        one to the whole pixel below, and the centre is cut out at whole pixels.
        """
        if self.resize_mode == "squash" or width == height:
            return 0.0, 0.0, float(width), float(height)
        short, long = min(width, height), max(width, height)
        resized = int(self.size * long / short)
        start = round((resized - self.size) / 2)
        first, last = (pixel * long / resized for pixel in (start, start + self.size))
        return (first, 0.0, last, float(height)) if width > height else (0.0, first, float(width), last)

    def normalise(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Bytes to what the model reads, on the device that they are on."""
        mean, std = (
            255 * torch.tensor(three, device=images.device).view(1, 3, 1, 1) for three in (self.mean, self.std)
        )
        return (images - mean) / std
