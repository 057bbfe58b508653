"""Image-text pairs in webdataset shards (img2dataset layout), indexed once and read at random."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Extent:
    """Where a member's bytes stand: shard number, offset, length."""

    shard: int
    offset: int
    length: int


@dataclass(frozen=True)
class Pair:
    """One key of a shard: an image and its caption."""

    key: str
    image: Extent
    caption: Extent


class PairShards:
    """The pairs of all `*.tar` in a folder, in the order of shard names and keys.

    Raises:
        FileNotFoundError: If the folder holds no shard or the shards no pair.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = sorted(folder.glob("*.tar"))
        if not self.shards:
            raise FileNotFoundError(f"Expected webdataset shards (*.tar) in {folder}, found none.")
        self.pairs = [pair for number, shard in enumerate(self.shards) for pair in _pairs_of(number, shard)]
        if not self.pairs:
            raise FileNotFoundError(f"The shards in {folder} hold no image with a caption (.jpg and .txt of one key).")

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def digest(self) -> str:
        """A sha256 over the names, sizes and index of the shards: cheap at any size, changes when pairs do."""
        lines = [f"{s.name} {s.stat().st_size}\n" for s in self.shards]
        lines += [f"{p.key} {p.image.offset} {p.image.length} {p.caption.length}\n" for p in self.pairs]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def caption(self, index: int) -> str:
        """The caption of pair `index`."""
        return self._read(self.pairs[index].caption).decode("utf-8", errors="replace").strip()

    def image(self, index: int) -> Image.Image:
        """The image of pair `index`, decoded, RGB.

        Raises:
            ValueError: If the bytes are no image, or one of more than `MAX_PIXELS`.
        """
        pair = self.pairs[index]
        try:
            with Image.open(io.BytesIO(self._read(pair.image))) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ValueError(f"more than {MAX_PIXELS} pixels")
                return picture.convert("RGB")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{self.shards[pair.image.shard]}, key {pair.key}: not a readable image: {error}"
            ) from None

    def _read(self, extent: Extent) -> bytes:
        with self.shards[extent.shard].open("rb") as file:
            file.seek(extent.offset)
            return file.read(extent.length)


def _pairs_of(number: int, shard: Path) -> Iterator[Pair]:
    images: dict[str, Extent] = {}
    captions: dict[str, Extent] = {}
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            extent = Extent(number, member.offset_data, member.size)
            if suffix.lower() in IMAGE_SUFFIXES:
                images[key] = extent
            elif suffix.lower() == "txt":
                captions[key] = extent
    for key in sorted(images.keys() & captions.keys()):
        yield Pair(key, images[key], captions[key])
