"""The distinct images of a benchmark folder, in image columns of parquet files (Hugging Face) or in files."""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

IMAGE_FILES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}
MAX_PIXELS = 100_000_000


class ImageError(ValueError):
    """A benchmark folder holds no images, or one that cannot be read."""


@dataclass(frozen=True)
class Pictures:
    """The distinct images of several tasks.

    Attributes:
        by_id: Decoded RGB images under the sha256 of their size and pixels; shared by the tasks.
        tasks: For each task the sorted ids of its distinct images.
        rows: For each task how many images were read before duplicates were dropped.
    """

    by_id: dict[str, Image.Image]
    tasks: dict[str, tuple[str, ...]]
    rows: dict[str, int]


def read_pictures(
    root: Path,
    tasks: list[str],
    max_per_task: int | None = None,
    on_task: Callable[[int], None] = lambda done: None,
) -> Pictures:
    """Read the images of `root/<task>/` for each task, each distinct one once.

    Duplicate rows would drive debiased CKA towards the biased value, so one image counts once however many questions
    are asked about it.

    Args:
        root: The folder of benchmarks.
        tasks: Their names.
        max_per_task: Keep that many images of a task, those with the lowest ids (a pseudo-random choice).
        on_task: Told after each task how many are done.

    Raises:
        ImageError: If a task's folder holds no image, or an image cannot be decoded.
    """
    by_id: dict[str, Image.Image] = {}
    ids: dict[str, tuple[str, ...]] = {}
    rows: dict[str, int] = {}
    with ThreadPoolExecutor() as pool:
        for done, task in enumerate(tasks, 1):
            found = list(pool.map(_decoded, *zip(*encoded_images(root / task), strict=True)))
            rows[task] = len(found)
            kept = dict(found)
            ids[task] = tuple(sorted(kept)[:max_per_task])
            for one in ids[task]:
                by_id.setdefault(one, kept[one])
            on_task(done)
    return Pictures(by_id, ids, rows)


def encoded_images(folder: Path) -> list[tuple[str, bytes]]:
    """Every image of a benchmark as (where it stands, encoded bytes).

    Raises:
        ImageError: If there is none.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            found += list(_from_parquet(path))
        elif path.suffix.lower() in IMAGE_FILES:
            found.append((str(path), path.read_bytes()))
    if not found:
        raise ImageError(f"Expected parquet files with images, or image files, in {folder}; found none.")
    return found


def _from_parquet(path: Path) -> Iterator[tuple[str, bytes]]:
    """The images of every column of type {bytes, path}, or of lists of it."""
    import pyarrow.parquet as parquet

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
