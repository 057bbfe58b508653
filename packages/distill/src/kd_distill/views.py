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
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Box = tuple[float, float, float, float]  # top, left, height, width, relative to the image
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
BLOCK = 4096
LOG_RATIO = math.log(4 / 3)


def stream(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """A generator that depends on all of its arguments and on nothing else."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *indices])


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


def in_pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, upper, right, lower), the nearest whole pixels of the original, at least one each way."""
    top, left, tall, wide = box
    first, right = round(left * width), round(min(1.0, left + wide) * width)
    upper, lower = round(top * height), round(min(1.0, top + tall) * height)
    first, upper = min(first, width - 1), min(upper, height - 1)
    return first, upper, max(right, first + 1), max(lower, upper + 1)


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

    def __call__(
        self, images: Sequence[Image.Image | UInt8[Tensor, "3 h w"]], boxes: Sequence[Box | None]
    ) -> UInt8[Tensor, "b 3 size size"]:
        """Each image's box resized to the square; without a box, what the model evaluates on (`resize_mode`).

        Channels last in memory. Pixels differ from open_clip's, which are Pillow's, by rounding: one grey level.
        """
        out = torch.empty((len(images), self.size, self.size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        for row, image, box in zip(out, images, boxes, strict=True):
            pixels = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image)).permute(2, 0, 1)
            row.copy_(self._crop(pixels, box) if box else self._whole(pixels))
        return out

    def _crop(self, pixels: UInt8[Tensor, "3 h w"], box: Box) -> UInt8[Tensor, "3 size size"]:
        left, upper, right, lower = in_pixels(box, pixels.shape[2], pixels.shape[1])
        return self._resized(pixels[:, upper:lower, left:right], self.size, self.size)

    def _whole(self, pixels: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 size size"]:
        """As open_clip: the shorter side to `size`, the longer one to the whole pixel below, then the centre."""
        short, long = sorted(pixels.shape[1:])
        if self.resize_mode == "squash" or short == long:
            return self._resized(pixels, self.size, self.size)
        resized = int(self.size * long / short)
        start = round((resized - self.size) / 2)
        if pixels.shape[1] == short:
            return self._resized(pixels, self.size, resized)[:, :, start : start + self.size]
        return self._resized(pixels, resized, self.size)[:, start : start + self.size]

    def _resized(self, pixels: UInt8[Tensor, "3 h w"], height: int, width: int) -> UInt8[Tensor, "3 height width"]:
        if pixels.shape[1:] == (height, width):
            return pixels
        # Rows of pixels one after the other, also for one image: the layout that the fast kernel wants and gives back.
        whole = pixels.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
        return F.interpolate(whole, (height, width), mode=self.interpolation, antialias=True, align_corners=False)[0]

    def normalise(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Bytes to what the model reads, on the device that they are on."""
        mean, std = (
            255 * torch.tensor(three, device=images.device).view(1, 3, 1, 1) for three in (self.mean, self.std)
        )
        return (images - mean) / std
