"""The formats of image-text pairs, by name, and sources and mixes of them from parameters."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from kd_distill.params import Params
from kd_distill.shards import PairShards
from kd_distill.sources import Mix, Source
from kd_distill.tables import PairParquet, PairTable


class Part(Params):
    """One source of pairs, and how often a mix shows it."""

    path: Path = Field(description="Folder of shards or of parquet files, table file, or id on the Hugging Face Hub.")
    format: Literal["webdataset", "table", "parquet", "hub"] = "webdataset"
    epochs: float = Field(1.0, gt=0, description="Passes over this part in one epoch of the mix.")
    image: str = Field("image", description="Column of images or of their paths; not of webdataset.")
    caption: str = Field("caption", description="Column of captions; not of webdataset.")
    separator: str = Field("\t", min_length=1, max_length=1, description="Between the columns of a table.")
    root: Path | None = Field(None, description="Folder that image paths are relative to and must stay in.")
    split: str = Field("train", description="Of a dataset on the Hub.")


def _webdataset(part: Part, home: Path | None) -> Source:
    return PairShards(part.path, home)


def _table(part: Part, home: Path | None) -> Source:
    return PairTable(
        part.path, root=part.root, separator=part.separator, image=part.image, caption=part.caption, home=home
    )


def _parquet(part: Part, home: Path | None) -> Source:
    return PairParquet(part.path, root=part.root, image=part.image, caption=part.caption, home=home)


def _hub(part: Part, home: Path | None) -> Source:
    from kd_distill.hub import PairHub

    if home is None:
        raise ValueError(
            f"{part.path}: a dataset of the Hub has no folder of its own; say in data.index where its index goes."
        )
    return PairHub(part.path.as_posix(), split=part.split, image=part.image, caption=part.caption, home=home)


FORMATS: dict[str, Callable[[Part, Path | None], Source]] = {
    "webdataset": _webdataset,
    "table": _table,
    "parquet": _parquet,
    "hub": _hub,
}


def open_pairs(data: Path | Sequence[Part], index: Path | None = None) -> Source:
    """A folder of shards, or the mix of some parts.

    Args:
        data: What `data.train` or `data.val` says.
        index: Folder of the indexes; None: each beside its data.

    Raises:
        FileNotFoundError: If there is nothing to read.
        ValueError: If files and manifests or columns disagree; TooManyBadError (exit code 3) if no pair can be used.
    """
    parts = [Part.model_validate({"path": data})] if isinstance(data, Path) else list(data)
    sources = [FORMATS[part.format](part, _home(part, index)) for part in parts]
    if len(parts) == 1 and parts[0].epochs == 1:
        return sources[0]
    return Mix(sources, [part.epochs for part in parts])


def _home(part: Part, index: Path | None) -> Path | None:
    return index / (part.path.absolute().as_posix().strip("/").replace("/", "-") + ".index") if index else None
