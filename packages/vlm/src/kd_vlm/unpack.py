"""Parquet files that hold their pictures (Hugging Face's {"bytes", "path"}), as conversations and a folder of pictures.

What this package reads is files of pictures: one picture is then one file, whatever reads it, found by its digest.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kd_vlm.durable import write_whole
from kd_vlm.rows import open_rows

SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png", b"GIF8": ".gif", b"BM": ".bmp"}
COLUMNS = ("image", "images")  # one picture or a list of them; the second is what most Hugging Face sets call it


def unpack(parquet: Path, out: Path, images: Path, on_row: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Write the rows of `parquet` to `out`, one JSON object a line, and their pictures below `images`.

    A picture is named by the digest of its bytes, so that equal ones are one file and an interrupted call, run again,
    writes only what is missing. Rows keep their order, and all columns that JSON can hold; pictures that are given as
    paths stay paths.

    Returns:
        The number of pictures, each counted once.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no parquet file, or a cell of pictures has another form.
    """
    if parquet.suffix != ".parquet":
        raise ValueError(f"{parquet}: expected a .parquet file; others hold no pictures.")
    rows, names = open_rows(parquet), set[str]()
    part = out.with_name(f".{out.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8") as lines:
        for number in range(len(rows)):
            row = dict(rows[number])
            found = [_named(cell, images, f"{parquet}: row {number}", names) for cell in _cells(row)]
            for column in COLUMNS:
                row.pop(column, None)
            if found:
                row["image"] = found[0] if len(found) == 1 else found
            lines.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
            on_row(number + 1, len(rows))
    part.replace(out)
    return len(names)


def _cells(row: Mapping[str, Any]) -> Iterator[Any]:
    for column in COLUMNS:
        cell = row.get(column)
        if cell is not None:
            yield from cell if isinstance(cell, list) else [cell]


def _named(cell: Any, images: Path, where: str, names: set[str]) -> str:
    """The path of a picture below `images`, where it stands afterwards."""
    if isinstance(cell, str):
        return cell
    if not isinstance(cell, Mapping) or not (isinstance(cell.get("bytes"), bytes) or isinstance(cell.get("path"), str)):
        raise ValueError(f"{where}: expected pictures as paths or as {{'bytes', 'path'}}, got {cell!r:.80}.")
    content = cell.get("bytes")
    if content is None:
        return str(cell["path"])
    suffix = next((end for begin, end in SUFFIXES.items() if content.startswith(begin)), "")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        suffix = ".webp"
    digest = hashlib.sha256(content).hexdigest()
    name = f"{digest[:2]}/{digest}{suffix}"
    place = images / name
    if name not in names and not (place.is_file() and place.stat().st_size == len(content)):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, content)
    names.add(name)
    return name
