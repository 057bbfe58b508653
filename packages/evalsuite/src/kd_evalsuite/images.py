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
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"An image has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are decoded.")
        return image.convert("RGB")
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"An image cannot be decoded: {error}") from error
