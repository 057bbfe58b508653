"""The formats of image-text pairs, by name, and sources and mixes of them from parameters."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from kd_distill.blocks import BlockCache
from kd_distill.params import Params
from kd_distill.remote import Remote, Url, name_of, shown
from kd_distill.remote_shards import Progress, RemoteShards
from kd_distill.shards import PairShards
from kd_distill.sources import Mix, Source
from kd_distill.tables import PairParquet, PairTable

MIB, GIB = 1 << 20, 1 << 30


class Network(Params):
    """How shards behind a URL are read; none of it changes what is read."""

    blocks: Path | None = Field(
        None, description="Folder on a disk of this machine for what was read; None: `blocks` in data.index."
    )
    limit_gb: float = Field(16.0, ge=0, allow_inf_nan=False, description="Of that folder; 0: each image is a request.")
    block_mb: float = Field(4.0, gt=0, allow_inf_nan=False, description="Read at a time, and kept.")
    tries: int = Field(8, ge=1, description="Of a request that fails, each after a longer pause.")
    timeout: float = Field(60.0, gt=0, allow_inf_nan=False, description="Seconds without a byte, of http.")


NETWORK = Network.model_validate({})


class Part(Params):
    """One source of pairs, and how often a mix shows it."""

    path: Url | Path = Field(
        description="Folder of shards or of parquet files, URL of shards, table file, or id on the Hugging Face Hub."
    )
    format: Literal["webdataset", "table", "parquet", "hub"] = "webdataset"
    epochs: float = Field(1.0, gt=0, description="Passes over this part in one epoch of the mix.")
    image: str = Field("image", description="Column of images or of their paths; not of webdataset.")
    caption: str = Field("caption", description="Column of captions; not of webdataset.")
    separator: str = Field("\t", min_length=1, max_length=1, description="Between the columns of a table.")
    root: Path | None = Field(None, description="Folder that image paths are relative to and must stay in.")
    split: str = Field("train", description="Of a dataset on the Hub.")

    @property
    def name(self) -> str:
        """What these pairs are called in journals and tags."""
        return name_of(self.path) if isinstance(self.path, str) else self.path.name

    @property
    def local(self) -> Path:
        """The path of a format that is not read over the network.

        Raises:
            ValueError: If it is a URL.
        """
        if isinstance(self.path, str):
            raise ValueError(f"{shown(self.path)}: a URL is read of the format webdataset alone, got {self.format}.")
        return self.path


@dataclass(frozen=True)
class Opening:
    """What a source is opened with: where its index goes, how the network is read, who is told of progress."""

    home: Path | None
    network: Network
    blocks: Path | None
    progress: Progress | None


def _webdataset(part: Part, to: Opening) -> Source:
    if not isinstance(part.path, str):
        return PairShards(part.path, to.home)
    if to.home is None:
        raise ValueError(f"{shown(part.path)}: a URL has no folder of its own; say in data.index where its index goes.")
    network = to.network
    blocks = BlockCache(to.blocks, int(network.limit_gb * GIB), int(network.block_mb * MIB)) if to.blocks else None
    remote = Remote(part.path, tries=network.tries, timeout=network.timeout)
    return RemoteShards(remote, to.home, blocks, to.progress)


def _table(part: Part, to: Opening) -> Source:
    return PairTable(
        part.local, root=part.root, separator=part.separator, image=part.image, caption=part.caption, home=to.home
    )


def _parquet(part: Part, to: Opening) -> Source:
    return PairParquet(part.local, root=part.root, image=part.image, caption=part.caption, home=to.home)


def _hub(part: Part, to: Opening) -> Source:
    from kd_distill.hub import PairHub

    if to.home is None:
        raise ValueError(
            f"{part.path}: a dataset of the Hub has no folder of its own; say in data.index where its index goes."
        )
    return PairHub(part.local.as_posix(), split=part.split, image=part.image, caption=part.caption, home=to.home)


FORMATS: dict[str, Callable[[Part, Opening], Source]] = {
    "webdataset": _webdataset,
    "table": _table,
    "parquet": _parquet,
    "hub": _hub,
}


def parts_of(data: str | Path | Sequence[Part]) -> list[Part]:
    """What `data.train` or `data.val` says, as parts."""
    return [Part.model_validate({"path": data})] if isinstance(data, str | Path) else list(data)


def open_pairs(
    data: str | Path | Sequence[Part],
    index: Path | None = None,
    network: Network = NETWORK,
    progress: Progress | None = None,
) -> Source:
    """A folder or URL of shards, or the mix of some parts.

    Args:
        data: What `data.train` or `data.val` says.
        index: Folder of the indexes; None: each beside its data.
        network: How URLs are read.
        progress: Called with (what, done, of) while a URL is indexed.

    Raises:
        FileNotFoundError: If there is nothing to read.
        ValueError: If files and manifests or columns disagree; TooManyBadError (exit code 3) if no pair can be used.
        UnreachableStoreError: If a URL does not answer (exit code 75).
    """
    parts = parts_of(data)
    keeps = network.limit_gb > 0 and (network.blocks or index)
    blocks = (network.blocks or Path(index or "") / "blocks") if keeps else None
    sources = [FORMATS[part.format](part, Opening(_home(part, index), network, blocks, progress)) for part in parts]
    if len(parts) == 1 and parts[0].epochs == 1:
        return sources[0]
    return Mix(sources, [part.epochs for part in parts])


def _home(part: Part, index: Path | None) -> Path | None:
    if index is None:
        return None
    if isinstance(part.path, str):
        place = shown(part.path)
        words = re.sub(r"[^A-Za-z0-9.]+", "-", place).strip("-")[-80:]
        return index / f"{words}-{hashlib.sha256(place.encode()).hexdigest()[:8]}.index"
    return index / (part.path.absolute().as_posix().strip("/").replace("/", "-") + ".index")
