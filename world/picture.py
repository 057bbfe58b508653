"""From a scene to the bytes of its JPEG."""

import random
from dataclasses import dataclass
from io import BytesIO

from world.canvas import Canvas
from world.scene import Scene


@dataclass(frozen=True)
class Pen:
    """How scenes become files.

    Attributes:
        size: Side in pixels.
        quality: Of the JPEG, 1 to 100.
        noise: Uniform noise, in grey levels up and down.
    """

    size: int
    quality: int
    noise: int

    def jpeg(self, scene: Scene, rng: random.Random) -> bytes:
        """The picture of `scene`, with full colour resolution. The same bytes for the same state of `rng`."""
        canvas = Canvas(self.size)
        scene.draw(canvas, rng)
        out = BytesIO()
        canvas.finish(self.noise, rng).save(out, "JPEG", quality=self.quality, subsampling=0)
        return out.getvalue()
