"""Bytes of an image file to bytes of pixels.

Only JPEG, PNG and WebP are opened, and only where the header names no more than `MAX_PIXELS`; the header is read
before any decoder runs. A file that ends too early is refused, never half filled. Pixels are those of open_clip's
transform, `convert("RGB")`: an alpha channel is dropped, the EXIF orientation is not applied, the first frame stands
for an animation. Unlike there, 16-bit grey keeps its range instead of being clipped to white.

JPEG goes through torchvision's decoder, which is faster than Pillow's and refuses every truncated file. Its pixels
differ from Pillow's by rounding only. Decoding at a reduced scale is not used: it saves a
seventh of the time of large photos and falls below 50 dB (benchmarks/distill_images.py).
"""

import io

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from kd_distill.ledger import BadSampleError, Cause

MAX_PIXELS = 25_000_000
FORMATS = ("JPEG", "PNG", "WEBP")
Pixels = UInt8[Tensor, "3 h w"]


def decode(data: bytes) -> Pixels:
    """RGB pixels, channels last in memory.

    Raises:
        BadSampleError: If `data` is no image of a known format, has too many pixels, or is damaged.
    """
    image = _header(data)
    if image.format == "JPEG":
        pixels = _decode_jpeg(data)  # of CMYK too: it tells whether the file is whole, Pillow inverts as Adobe does
        if image.mode in ("RGB", "L"):
            return pixels
    return _decode_with_pillow(image)


def _header(data: bytes) -> Image.Image:
    """The image as its header describes it; no pixel is decoded."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadSampleError(Cause.PIXELS, str(error)) from None
    except Exception as error:  # parsers of formats raise much else on what is not of them
        raise BadSampleError(Cause.NOT_AN_IMAGE, f"{len(data)} bytes that begin with {data[:12]!r}") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadSampleError(Cause.PIXELS, f"{image.width} x {image.height}, expected at most {MAX_PIXELS} pixels")
    return image


def _decode_jpeg(data: bytes) -> Pixels:
    from torchvision.io import ImageReadMode, decode_jpeg  # a second at import, and only training needs it

    try:
        pixels: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError as error:
        raise BadSampleError(Cause.TRUNCATED, str(error).splitlines()[0]) from None
    return pixels


def _decode_with_pillow(image: Image.Image) -> Pixels:
    try:
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        pixels = np.array(image.convert("RGB"))
    except Exception as error:  # OSError, SyntaxError, struct.error, ...: plugins differ
        raise BadSampleError(Cause.TRUNCATED, f"{type(error).__name__}: {error}") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)
