"""Decoding images from outside."""

import io

from PIL import Image

from kd_evalsuite.items import DataError

MAX_PIXELS = 100_000_000


def decode(data: bytes) -> Image.Image:
    """The image in RGB; the size in its header is looked at before it is decoded.

    Raises:
        DataError: If it is not an image, or has more than `MAX_PIXELS` pixels.
    """
    image = _opened(data)
    try:
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"An image cannot be decoded: {error}") from error


def mime_type(data: bytes) -> str:
    """`image/jpeg` and the like, from the image's own header.

    Raises:
        DataError: As `decode`.
    """
    return Image.MIME.get(str(_opened(data).format), "application/octet-stream")


def _opened(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"An image cannot be decoded: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"An image has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are decoded.")
    return image
