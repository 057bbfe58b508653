"""Distinct images: of a folder of files, of webdataset shards, or of the image columns of parquet files (Hugging Face).

They are read twice: once to tell them apart, once for the encoders. What fits `HELD_BYTES` is decoded once.
"""

import hashlib
import io
import itertools
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from kd_analysis.reading import open_tar, parquet_errors, tar_members
from kd_analysis.store import Decoded

IMAGE_FILES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}
MAX_PIXELS = 100_000_000
HELD_BYTES = 512 * 2**20  # of decoded pixels
AHEAD = 64  # images decoded side by side

Encoded = tuple[str, bytes]  # where it stands, and its bytes


class ImageError(ValueError):
    """There are no images, or one cannot be read."""


class Pictures:
    """The distinct images of several tasks.

    Attributes:
        tasks: For each task the sorted ids of its distinct images: the sha256 of size and pixels.
        rows: For each task how many images were read before duplicates were dropped.
        files: For each id the sha256 of the encoded images that hold it.
    """

    def __init__(self, sources: Mapping[str, Path]) -> None:
        self.tasks: dict[str, tuple[str, ...]] = {}
        self.rows: dict[str, int] = {}
        self.files: dict[str, set[str]] = {}
        self._sources = sources
        self._at: dict[str, tuple[str, int]] = {}  # id -> task, number within its source
        self._held: dict[str, Image.Image] = {}

    @property
    def ids(self) -> list[str]:
        """All of them, in the order in which `stream` gives them."""
        return list(self._at)

    def take(self, task: str, found: Iterable[tuple[str, Image.Image | None]], most: int | None) -> None:
        """Note the images of a task, and hold the decoded ones while there is room."""
        first: dict[str, int] = {}
        fresh: dict[str, Image.Image] = {}
        room = HELD_BYTES - sum(map(_bytes_held, self._held.values()))
        n = 0
        for n, (one, image) in enumerate(found, 1):
            if one not in first and image is not None and one not in self._held and _bytes_held(image) <= room:
                fresh[one] = image
                room -= _bytes_held(image)
            first.setdefault(one, n - 1)
        kept = set(sorted(first)[:most])
        self.rows[task], self.tasks[task] = n, tuple(sorted(kept))
        for one, number in first.items():
            if one in kept:
                self._at.setdefault(one, (task, number))
        self._held |= {one: image for one, image in fresh.items() if one in kept}

    def stream(self, wanted: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
        """Decoded RGB images under their ids, each once."""
        for task, source in self._sources.items():
            here = {number: one for one, (place, number) in self._at.items() if place == task and one in wanted}
            held = [one for one in here.values() if one in self._held]
            yield from ((one, self._held[one]) for one in held)
            rest = {number: one for number, one in here.items() if one not in self._held}
            if rest:
                chosen = ((rest[k], item) for k, item in enumerate(encoded_images(source)) if k in rest)
                yield from _ahead(lambda given: (given[0], _decoded(*given[1])[1]), chosen)


def _bytes_held(image: Image.Image) -> int:
    return image.width * image.height * 3


def read_pictures(
    sources: Mapping[str, Path],
    max_per_task: int | None = None,
    known: Decoded | None = None,
    on_image: Callable[[str, int], None] = lambda task, done: None,
) -> Pictures:
    """The distinct images of each source.

    Duplicate rows would drive debiased CKA towards the biased value, so one image counts once however many questions
    are asked about it.

    Args:
        sources: By the name of the task: a folder (of images, parquet files or shards), one such file, or a pattern.
        max_per_task: Keep that many images of a task, those with the lowest ids (a pseudo-random choice).
        known: Ids of images that were decoded before.
        on_image: Told (task, images read so far).

    Raises:
        ImageError: If a source holds no image, or an image cannot be decoded.
    """
    known = known or Decoded()
    pictures = Pictures(sources)

    def identified(item: Encoded) -> tuple[str, Image.Image | None]:
        data_sha256, one = known.of(item[1])
        image = None
        if one is None:
            one, image = _decoded(*item)
            known.learn(data_sha256, one)
        pictures.files.setdefault(one, set()).add(data_sha256)
        return one, image

    for task, source in sources.items():
        pictures.take(task, _told(_ahead(identified, encoded_images(source)), task, on_image), max_per_task)
    known.save()
    return pictures


def _told(found: Iterable[Any], task: str, on_image: Callable[[str, int], None]) -> Iterator[Any]:
    done = 0
    for done, one in enumerate(found, 1):
        if done % AHEAD == 0:
            on_image(task, done)
        yield one
    on_image(task, done)


def _ahead(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`work` on the items in threads, in order, a bounded number at a time."""
    with ThreadPoolExecutor() as pool:
        for some in _batched(items):
            yield from pool.map(work, some)


def _batched(items: Iterable[Any]) -> Iterator[list[Any]]:
    walk = iter(items)
    while some := list(itertools.islice(walk, AHEAD)):
        yield some


def encoded_images(source: Path) -> Iterator[Encoded]:
    """Every image of a source as (where it stands, encoded bytes), in one order.

    Raises:
        ImageError: If there is none.
    """
    found = False
    for path in _files(source):
        for item in _in_file(path):
            found = True
            yield item
    if not found:
        raise ImageError(f"Expected images, webdataset shards or parquet files with images in {source}; found none.")


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(source.rglob("*"))
    return [source] if source.is_file() else sorted(source.parent.glob(source.name))


def _in_file(path: Path) -> Iterator[Encoded]:
    if path.suffix == ".parquet":
        yield from _from_parquet(path)
    elif path.suffix == ".tar":
        yield from _from_tar(path)
    elif path.suffix.lower() in IMAGE_FILES:
        yield str(path), path.read_bytes()


def _from_tar(path: Path) -> Iterator[Encoded]:
    """The images of a webdataset shard; nothing is unpacked."""
    try:
        with open_tar(path) as shard:
            for member in tar_members(shard):
                if member.offset_data + member.size > path.stat().st_size:
                    raise tarfile.ReadError(f"it ends within {member.name}")
                if member.isfile() and not member.issparse() and Path(member.name).suffix.lower() in IMAGE_FILES:
                    stream = shard.extractfile(member)
                    if stream is not None:
                        yield f"{path}, {member.name}", stream.read()
    except tarfile.TarError as error:
        raise ImageError(f"{path}: not a readable shard: {error}") from None


def _from_parquet(path: Path) -> Iterator[tuple[str, bytes]]:
    """The images of every column of type {bytes, path}, or of lists of it."""
    import pyarrow.parquet as parquet

    with parquet_errors(path, ImageError):
        file = parquet.ParquetFile(path)
        columns = [field.name for field in file.schema_arrow if _holds_images(field.type)]
        for group in range(file.num_row_groups if columns else 0):
            for name, column in file.read_row_group(group, columns=columns).to_pydict().items():
                for number, cell in enumerate(column):
                    for image in cell if isinstance(cell, list) else [cell]:
                        if image is not None and (data := _bytes_of(image, path)):
                            yield f"{path}, column {name}, row {number}", data


def _holds_images(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind):
        return _holds_images(kind.value_type)
    return types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}


def _bytes_of(image: dict[str, Any], file: Path) -> bytes | None:
    if image["bytes"] is not None:
        return bytes(image["bytes"])
    if image["path"] is None:
        return None
    target = (file.parent / image["path"]).resolve()
    if not target.is_relative_to(file.parent.resolve()) or not target.is_file():
        raise ImageError(f"{file}: expected an image inside {file.parent}, got the path {image['path']!r}.")
    return target.read_bytes()


def _decoded(where: str, data: bytes) -> tuple[str, Image.Image]:
    try:
        opened = Image.open(io.BytesIO(data))
        if opened.width * opened.height > MAX_PIXELS:
            raise ImageError(f"{where}: expected at most {MAX_PIXELS} pixels, the header says {opened.size}.")
        image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{where}: not a readable image: {error}") from None
    head = f"{image.width}x{image.height}:".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest(), image
