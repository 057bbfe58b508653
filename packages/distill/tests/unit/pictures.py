"""Image files and shards for tests."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def picture(width: int = 40, height: int = 30, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A smooth picture: JPEG keeps it to a few grey levels."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((seed + 1) * 0.1 * x + channel) + np.cos(0.13 * y * (channel + 1)) for channel in range(3)]
    return Image.fromarray((127 + 60 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg(seed: int = 0, width: int = 40, height: int = 30) -> bytes:
    return encoded(picture(width, height, seed), quality=90)


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], successes: int | None = None) -> Path:
    """A shard, and its manifest where `successes` is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    if successes is not None:
        path.with_name(f"{path.stem}_stats.json").write_text(json.dumps({"count": successes, "successes": successes}))
    return path


def pairs(keys: Iterable[int], seed: int = 0) -> list[tuple[str, bytes]]:
    """Members of one pair a key."""
    return [
        member
        for key in keys
        for member in ((f"{key:09d}.jpg", jpeg(key + seed)), (f"{key:09d}.txt", f"picture {key}".encode()))
    ]
