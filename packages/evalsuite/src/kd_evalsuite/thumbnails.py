"""Small JPEGs of a benchmark's images, for pages that hold their images themselves."""

import base64
import io
from pathlib import Path

from PIL import Image, ImageOps

from kd_evalsuite.images import MAX_PIXELS
from kd_evalsuite.items import Picture
from kd_evalsuite.safe import printable

SIDE = 320  # of a thumbnail
QUALITY = 78


class ThumbnailError(ValueError):
    """An image that is not shown; the message says why."""


class Thumbnails:
    """Data URIs of small images until a budget of bytes is spent.

    Args:
        budget: Bytes of all images together, as they stand in the page.
        root: Image files must lie in this folder; None if no files are read.
    """

    def __init__(self, budget: int, root: Path | None) -> None:
        self.left = budget
        self._root = root.resolve() if root else None

    def uri(self, picture: Picture) -> str:
        """The picture as `data:image/jpeg;base64,…`.

        Raises:
            ThumbnailError: If it cannot or must not be shown.
        """
        self._refuse_outside(picture)
        try:
            data = picture.read()
        except (OSError, ValueError):  # the page names no path of the machine that made it
            raise ThumbnailError("not found in the data folder") from None
        text = "data:image/jpeg;base64," + base64.b64encode(thumbnail(data)).decode()
        if len(text) > self.left:
            raise ThumbnailError("left out: the page's limit of bytes for images is reached")
        self.left -= len(text)
        return text

    def _refuse_outside(self, picture: Picture) -> None:
        if picture.path is None or self._root is None:
            return
        real = picture.path.resolve()
        allowed = (self._root, *(p.resolve() for p in self._root.iterdir() if p.is_dir()))
        if not any(real.is_relative_to(root) for root in allowed):
            raise ThumbnailError("left out: its path leads out of the data folder")


def thumbnail(data: bytes, side: int = SIDE) -> bytes:
    """A JPEG of at most `side` pixels on each side; equal bytes give equal bytes.

    Raises:
        ThumbnailError: If the data are not an image, or one of more than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ThumbnailError(f"left out: {image.width} x {image.height} pixels")
            image.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size
            small = ImageOps.exif_transpose(_opaque(image))
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            small.save(stream, "JPEG", quality=QUALITY, optimize=True)
    except ThumbnailError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ThumbnailError(f"left out: cannot be decoded ({printable(str(error))})") from None
    return stream.getvalue()


def _opaque(image: Image.Image) -> Image.Image:
    """In RGB, on white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        ground = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(ground, with_alpha).convert("RGB")
    return image.convert("RGB")
