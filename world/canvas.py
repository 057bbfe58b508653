"""Drawing primitives. Everything is drawn at twice the size and averaged down, which is the anti-aliasing."""

import functools
import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
SCALE = 2
INK: Colour = (15, 15, 15)
PAPER: Colour = (250, 250, 245)


class Canvas:
    """A square picture of `size` pixels. All coordinates and lengths are fractions of its side."""

    def __init__(self, size: int, background: Colour = PAPER) -> None:
        self.size = size
        self._side = size * SCALE
        self._image = Image.new("RGB", (self._side, self._side), background)
        self._draw = ImageDraw.Draw(self._image)

    def _px(self, *values: float) -> list[int]:
        return [round(v * self._side) for v in values]

    def rectangle(
        self, x0: float, y0: float, x1: float, y1: float, fill: Colour, outline: Colour | None = None
    ) -> None:
        self._draw.rectangle(self._px(x0, y0, x1, y1), fill=fill, outline=outline, width=SCALE)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        fill: Colour | None,
        outline: Colour | None = None,
        width: float = 0.01,
    ) -> None:
        self._draw.ellipse(
            self._px(x - rx, y - ry, x + rx, y + ry), fill=fill, outline=outline, width=self._px(width)[0]
        )

    def arc(self, x: float, y: float, r: float, start: int, end: int, colour: Colour, width: float) -> None:
        """An arc from `start` to `end` degrees, clockwise from three o'clock."""
        self._draw.arc(self._px(x - r, y - r, x + r, y + r), start, end, fill=colour, width=self._px(width)[0])

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        self._draw.polygon([tuple(self._px(*p)) for p in points], fill=fill)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: Colour = INK, width: float = 0.012) -> None:
        self._draw.line(self._px(x0, y0, x1, y1), fill=colour, width=max(1, self._px(width)[0]))

    def text(self, x: float, y: float, text: str, height: float, colour: Colour = INK, anchor: str = "mm") -> None:
        """`text` with capitals about `height` tall; `anchor` as in Pillow ("mm" centres it)."""
        left, top = self._px(x, y)
        font = _font(self._px(height * 1.35)[0])
        self._draw.text((left, top), text, font=font, fill=colour, anchor=anchor, stroke_width=1)

    def shape(self, name: str, x: float, y: float, r: float, colour: Colour) -> None:
        """One of the named shapes inside the circle of radius `r` about (x, y)."""
        if name == "circle":
            self.ellipse(x, y, r, r, colour)
        elif name == "ring":
            self.ellipse(x, y, r, r, None, outline=colour, width=0.38 * r)
        elif name == "square":
            self.rectangle(x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r, colour)
        elif name == "cross":
            self.rectangle(x - r, y - 0.3 * r, x + r, y + 0.3 * r, colour)
            self.rectangle(x - 0.3 * r, y - r, x + 0.3 * r, y + r, colour)
        else:
            self.polygon(_outline(name, x, y, r), colour)

    def finish(self, noise: int, rng: random.Random) -> Image.Image:
        """The picture at its final size with uniform noise of plus or minus `noise` grey levels."""
        pixels = np.asarray(self._image.reduce(SCALE), dtype=np.int16)
        if noise:
            grain = np.frombuffer(rng.randbytes(pixels.size), dtype=np.uint8).reshape(pixels.shape)
            pixels = pixels + (grain.astype(np.int16) * (2 * noise + 1) // 256 - noise)
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@functools.cache
def _font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in typeface: the same outlines and layout on every machine."""
    return ImageFont.load_default(size=pixels)


def _outline(name: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """Corners of a star or an upright triangle."""
    if name == "triangle":
        return [(x, y - r), (x - 0.95 * r, y + 0.75 * r), (x + 0.95 * r, y + 0.75 * r)]
    if name != "star":
        raise ValueError(f"Unknown shape {name!r}. Known: circle, square, triangle, star, cross, ring.")
    angles = [math.pi * (k / 5 - 0.5) for k in range(10)]
    radii = [r if k % 2 == 0 else 0.42 * r for k in range(10)]
    return [(x + q * math.cos(t), y + q * math.sin(t)) for t, q in zip(angles, radii, strict=True)]
