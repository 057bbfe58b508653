"""Data sets that are made of others, tables of captions and parts of a set of shards, or fetched by `evalsuite`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kd_distill.durable import sync_names

from pipeline.data.errors import DataError
from pipeline.data.spec import DataFile

HEADER = "filepath\ttitle\n"


def captions(conversations: Path, table: Path) -> int:
    """Write the columns `filepath` and `title` of pretraining conversations; the number of rows.

    The title is what the assistant says, white space as single blanks: values stand as they are, without quotes.

    Raises:
        DataError: If a row has no picture of one name, no reply, or a tab in its path.
    """
    from kd_vlm.rows import open_rows

    table.parent.mkdir(parents=True, exist_ok=True)
    part, rows = table.with_name(f".{table.name}.part"), 0
    with part.open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER)
        for number, row in enumerate(open_rows(conversations), start=1):
            try:
                picture, title = row["image"], _replies(row)
            except (KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{conversations}: row {number} is no captioned picture: {error!r}.") from None
            if not isinstance(picture, str) or not title or set(picture) & set("\t\r\n"):
                raise DataError(f"{conversations}: row {number}: expected one picture and a reply, got {picture!r}.")
            file.write(f"{picture}\t{title}\n")
            rows = number
        file.flush()
        os.fsync(file.fileno())
    part.replace(table)
    sync_names(table.parent)
    return rows


def _replies(row: dict[str, Any]) -> str:
    said = [turn["value"] for turn in row["conversations"] if turn["from"] == "gpt"]
    return " ".join(" ".join(said).split())


def link_shards(base: Path, into: Path, *, last: int | None, all_but_last: int | None) -> int:
    """Make `into` a folder of links to some of the shards of `base`, and to what img2dataset says of them.

    Raises:
        DataError: If `base` has too few, or `into` holds something that is no link.
    """
    shards = sorted(base.glob("*.tar"))
    held_out = last or all_but_last or 0
    if len(shards) <= held_out:
        raise DataError(f"{base}: expected more than {held_out} shards, found {len(shards)}.")
    chosen = shards[-held_out:] if last else shards[:-held_out]
    wanted = {file.name: file for shard in chosen for file in (shard, *_said_of(shard))}
    into.mkdir(parents=True, exist_ok=True)
    for there in into.iterdir():
        if not there.is_symlink():
            raise DataError(f"{there} is no link; {into} is made of links to {base} alone. Move it away.")
        if there.name not in wanted or there.resolve() != wanted[there.name].resolve():
            there.unlink()
    for name, file in wanted.items():
        if not (into / name).is_symlink():
            (into / name).symlink_to(os.path.relpath(file, into.resolve()))
    return len(chosen)


def _said_of(shard: Path) -> Iterator[Path]:
    if (stats := shard.with_name(f"{shard.stem}_stats.json")).is_file():
        yield stats


def make(spec: DataFile, name: str) -> Iterator[str]:
    """Make what is made of other data sets, and let `evalsuite` fetch benchmarks; a line on each.

    Raises:
        DataError: If the other data set is not there, or `evalsuite fetch` fails.
    """
    folder, dataset = spec.folder(name), spec.datasets[name]
    for source in dataset.sources:
        if (base := source.captions_of or source.shards_of) and not spec.folder(base).is_dir():
            raise DataError(f"{name} is made of {base}, which is not there yet.")
        if source.captions_of:
            conversations = spec.folder(source.captions_of) / spec.datasets[source.captions_of].holds.file
            yield f"{name}: {captions(conversations, folder / dataset.holds.file):,} captions of {source.captions_of}"
        elif source.shards_of:
            of = spec.folder(source.shards_of)
            number = link_shards(of, folder, last=source.last, all_but_last=source.all_but_last)
            yield f"{name}: links to {number:,} shards of {source.shards_of}"
        elif source.benchmarks:
            command = [sys.executable, "-m", "kd_evalsuite", "fetch", *source.benchmarks, "--data", str(folder)]
            if subprocess.run(command, check=False).returncode:
                raise DataError(f"{name}: evalsuite fetch failed; its message stands above.")
            yield f"{name}: fetched by evalsuite"
