"""Image-text pairs in webdataset shards behind a URL: indexed by one walk, then read at random by ranges."""

import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from kd_distill.ahead import ahead
from kd_distill.blocks import BlockCache
from kd_distill.durable import write_whole
from kd_distill.index import RemoteState, open_index
from kd_distill.ledger import Cause, Entry
from kd_distill.remote import Remote, RemoteFile, root_of, shown
from kd_distill.shards import MANIFEST, OPTIONS, Contents, contents_of, expected_of, rows_of
from kd_distill.sources import IndexedPairs

PIECE = 8 << 20  # bytes that a walk over a shard asks for at a time
WALKERS = 4  # shards that are walked at a time
NOT_BOUND = 7 * 24 * 3600.0  # seconds for one shard; each request has its own bound
Progress = Callable[[str, int, int], None]
Read = Callable[[RemoteFile, int, int], bytes]


class RemoteShards(IndexedPairs):
    """The pairs of all shards of a URL: the same, in the same order, as those of the same shards in a folder.

    Args:
        remote: Where the shards are.
        home: Folder of the index.
        blocks: Where what was read is kept; None: nowhere, and each image is a request of its own.
        progress: Called with (what, megabytes walked, of) while the index is built.

    Raises:
        FileNotFoundError: If there is no shard, or one that the braces name is missing.
        UnreachableStoreError: If the storage does not answer.
        ValueError: As `PairShards`.
    """

    def __init__(
        self, remote: Remote, home: Path, blocks: BlockCache | None = None, progress: Progress | None = None
    ) -> None:
        self._remote, self._blocks = remote, blocks
        urls = remote.urls()
        if not urls:
            raise FileNotFoundError(f"Expected webdataset shards (*.tar) at {shown(remote.url)}, found none.")
        root = root_of(urls)
        self.shards = remote.files(urls, root)
        manifests = remote.files(self._manifests(urls), root, missing=not remote.is_folder)
        index = open_index(
            home,
            [RemoteState(file.name, file.size, file.version) for file in [*self.shards, *manifests]],
            OPTIONS,
            lambda: self._rows(manifests, home / "walked", progress or (lambda what, done, of: None)),
        )
        super().__init__(shown(remote.url), index)

    def image(self, index: int) -> bytes:
        """The bytes of the image file of pair `index`.

        Raises:
            IntegrityError: If the shard is no longer the one that was indexed.
            UnreachableStoreError: If the storage does not answer.
        """
        file, start, size = self.index.places[index].tolist()
        return self._read(self.shards[file], start, start + size)

    def file(self, index: int) -> str:
        """The shard of pair `index`."""
        return self.shards[self.index.places[index]["file"]].name

    def _read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        if self._blocks is None:
            return self._remote.read(file, start, stop)
        return self._blocks.read(file.key, file.size, start, stop, partial(self._remote.read, file))

    def _manifests(self, urls: Sequence[str]) -> list[str]:
        """Where manifests are, or may be: those of a folder can be listed, also of shards that are missing."""
        if self._remote.is_folder:
            return self._remote.urls(MANIFEST)
        return [url.replace(".tar", MANIFEST) if "?" in url else url.removesuffix(".tar") + MANIFEST for url in urls]

    def _rows(self, manifests: Sequence[RemoteFile], walked: Path, progress: Progress) -> Iterator:
        names = [shard.name for shard in self.shards]
        place = shown(self._remote.url).rpartition("/")[0] if not self._remote.is_folder else shown(self._remote.url)
        expected = expected_of(((file.name, self._remote.read(file, 0, file.size)) for file in manifests), place)
        total = sum(shard.size for shard in self.shards)
        # what fits stays here, and crosses the network once
        keeps = self._blocks is not None and total <= self._blocks.limit
        walker = _Walker(self._read if keeps else self._remote.read, walked, total, progress, place)
        yield from rows_of(names, walker.all(self.shards), expected, place.rstrip("/"))
        shutil.rmtree(walked, ignore_errors=True)


class _Walker:
    """Walks over shards, several at a time; what was found stays in `folder`, so that a killed walk goes on."""

    def __init__(self, read: Read, folder: Path, total: int, progress: Progress, place: str) -> None:
        self._read, self._folder, self._total, self._place = read, folder, total, place
        self._progress, self._lock, self._done = progress, threading.Lock(), 0

    def all(self, shards: Sequence[RemoteFile]) -> Iterator[Contents]:
        self._folder.mkdir(parents=True, exist_ok=True)
        return ahead(
            lambda number: self._contents(shards[number]),
            0,
            len(shards),
            workers=WALKERS,
            timeout=NOT_BOUND,
            describe=lambda number: f"The walk over {shown(shards[number].url)}",
        )

    def _contents(self, shard: RemoteFile) -> Contents:
        kept = self._folder / f"{shard.key}.json"
        if kept.is_file():
            self._count(shard.size)
            return _decoded(kept.read_bytes())
        stream = cast(BinaryIO, io.BufferedReader(_Stream(shard, self._counted), 1 << 16))
        contents = contents_of(shard.name, stream, shard.size)
        write_whole(kept, _encoded(contents))
        return contents

    def _counted(self, shard: RemoteFile, start: int, stop: int) -> bytes:
        data = self._read(shard, start, stop)
        self._count(len(data))
        return data

    def _count(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._progress(f"{self._place}: MB indexed", min(self._done, self._total) >> 20, self._total >> 20)


class _Stream(io.RawIOBase):
    """A remote file as a stream; it holds the piece that it is in."""

    def __init__(self, file: RemoteFile, read: Read) -> None:
        self._file, self._read_range, self._at = file, read, 0
        self._start, self._piece = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer) -> int:  # noqa: ANN001
        if not 0 <= self._at < self._file.size:
            return 0
        if not self._start <= self._at < self._start + len(self._piece):
            self._start = self._at - self._at % PIECE
            self._piece = self._read_range(self._file, self._start, min(self._start + PIECE, self._file.size))
        within = self._at - self._start
        n = min(len(buffer), len(self._piece) - within)
        buffer[:n] = self._piece[within : within + n]
        self._at += n
        return n


def _encoded(contents: Contents) -> bytes:
    captions = {key: text.decode("utf-8", "surrogateescape") for key, text in contents.captions.items()}
    return json.dumps(asdict(contents) | {"captions": captions}).encode()


def _decoded(text: bytes) -> Contents:
    found = json.loads(text)
    return Contents(
        {key: (start, size) for key, (start, size) in found["images"].items()},
        {key: caption.encode("utf-8", "surrogateescape") for key, caption in found["captions"].items()},
        [Entry(**(entry | {"cause": Cause(entry["cause"])})) for entry in found["unusable"]],
        found["cut"],
    )
