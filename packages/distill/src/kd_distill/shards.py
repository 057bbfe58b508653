"""Image-text pairs in webdataset shards (img2dataset layout), read at random through an index, never extracted."""

import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO

from pydantic import Field
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_distill import reading
from kd_distill.captions import MAX_BYTES, checked
from kd_distill.index import Row, open_index, states
from kd_distill.ledger import BadSampleError, Cause, Entry
from kd_distill.sources import IndexedPairs

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
MANIFEST = "_stats.json"
OPTIONS = "shards"  # of the index
BLOCK = 512  # of a tar
CHUNK = 1 << 20


class Stats(TypedDict):
    """What is read of `<shard>_stats.json`. Each pair that is missing gets a line in the ledger, hence a bound."""

    successes: Annotated[int, Field(ge=0, le=1_000_000)]


class PairShards(IndexedPairs):
    """The pairs of all `*.tar` in a folder, in the order of shard names and keys.

    Args:
        folder: Of the shards. `<shard>_stats.json` of img2dataset, where it is there, says how many pairs a shard must
            hold.
        home: Where the index goes; None: beside the folder, in `<folder>.index`.

    Raises:
        FileNotFoundError: If the folder holds no shard or the shards no pair.
        ValueError: If a shard holds more pairs than its manifest says, or is cut and has none, so that nobody knows
            how many pairs are lost.
    """

    def __init__(self, folder: Path, home: Path | None = None) -> None:
        self.folder = folder
        self.shards = sorted(folder.glob("*.tar"))
        manifests = sorted(folder.glob(f"*{MANIFEST}"))
        if not self.shards:
            raise FileNotFoundError(f"Expected webdataset shards (*.tar) in {folder}, found none.")
        index = open_index(
            home or folder.with_name(folder.name + ".index"),
            states(self.shards + manifests, folder),
            OPTIONS,
            lambda: rows_of(
                [shard.name for shard in self.shards],
                (_local_contents(shard) for shard in self.shards),
                expected_of(((m.name, m.read_bytes()) for m in manifests), str(folder)),
                str(folder),
            ),
        )
        super().__init__(str(folder), index)

    def image(self, index: int) -> bytes:
        """The bytes of the image file of pair `index`.

        Raises:
            OSError: If the shard is gone or shorter than it was.
        """
        file, start, size = self.index.places[index].tolist()
        with self.shards[file].open("rb") as shard:
            shard.seek(start)
            data = shard.read(size)
        if len(data) != size:
            raise OSError(f"{self.shards[file]}: expected {size} bytes at {start}, got {len(data)}; was it replaced?")
        return data

    def file(self, index: int) -> str:
        """The shard of pair `index`."""
        return self.shards[self.index.places[index]["file"]].name


def expected_of(manifests: Iterable[tuple[str, bytes]], place: str) -> dict[str, int]:
    """Pairs that each shard must hold, by the shard's name, from names and contents of img2dataset's manifests.

    Raises:
        FileError: If one does not say it; a ValueError. `place` is where they are.
    """
    counts: dict[str, int] = {}
    for name, text in manifests:
        stats = reading.checked(Stats, reading.parse_json(text, f"{place}/{name}"), f"{place}/{name}")
        counts[name.removesuffix(MANIFEST) + ".tar"] = stats["successes"]
    return counts


def rows_of(
    shards: Sequence[str], walked: Iterable["Contents"], expected: Mapping[str, int], place: str
) -> Iterator[Row | Entry]:
    """Pairs and ledger entries of all shards; the two together are as many as the manifests say.

    Args:
        shards: Their names, in order.
        walked: What is in each of them.
        expected: Pairs that a shard must hold, for those that have a manifest.
        place: Where the shards are, for messages.

    Raises:
        ValueError: See `PairShards`.
    """
    for number, (shard, contents) in enumerate(zip(shards, walked, strict=True)):
        rows = [*contents.unusable, *_rows_of_one(number, shard, contents)]
        yield from rows
        yield from _lost(shard, len(rows), expected.get(shard), contents.cut, place)
    for name in sorted(expected.keys() - set(shards)):
        for _ in range(expected[name]):
            yield Entry(name, "", Cause.LOST, "the shard is missing")


def _lost(shard: str, found: int, expected: int | None, cut: str | None, place: str) -> Iterator[Entry]:
    manifest = shard.removesuffix(".tar") + MANIFEST
    if expected is None:
        if cut:
            raise ValueError(
                f"{place}/{shard}: {cut}, and no {manifest} says how many pairs it should hold (found {found}). "
                "Write it again, or remove it."
            )
        return
    if found > expected:
        raise ValueError(f"{place}/{shard}: expected {expected} pairs ({manifest}), found {found}.")
    cause = Cause.TRUNCATED_TAR if cut else Cause.LOST
    for _ in range(expected - found):
        yield Entry(shard, "", cause, cut or f"expected {expected} pairs, found {found}")


@dataclass
class Contents:
    """What one walk over a shard finds."""

    images: dict[str, tuple[int, int]] = field(default_factory=dict)  # key: (offset, size)
    captions: dict[str, bytes] = field(default_factory=dict)
    unusable: list[Entry] = field(default_factory=list)
    cut: str | None = None  # how the shard ends too early


def _rows_of_one(number: int, shard: str, contents: Contents) -> Iterator[Row | Entry]:
    images, captions = contents.images, contents.captions
    for key in sorted(images.keys() | captions.keys()):
        if key not in images or key not in captions:
            cause = Cause.NO_IMAGE if key in captions else Cause.NO_CAPTION
            detail = "expected .jpg, .png or .webp and .txt of one key"
            yield Entry(shard, key, Cause.TRUNCATED_TAR if contents.cut else cause, contents.cut or detail)
            continue
        try:
            yield Row(number, *images[key], key, checked(captions[key]))
        except BadSampleError as bad:
            yield Entry(shard, key, bad.cause, bad.detail)


class Refused:
    """Pairs whose names are no keys: one entry a pair, of its image and its caption the one that comes first."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, int], Entry] = {}  # (key, which pair of that key)
        self._members: Counter[tuple[str, bool]] = Counter()  # (key, is it a caption)

    def add(self, key: str, suffix: str, entry: Entry) -> None:
        """Note a member."""
        which = self._members[key, suffix == "txt"]
        self._members[key, suffix == "txt"] += 1
        self.entries.setdefault((key, which), entry)


def _local_contents(shard: Path) -> Contents:
    with shard.open("rb") as file:
        return contents_of(shard.name, file, shard.stat().st_size)


def contents_of(shard: str, file: BinaryIO, length: int) -> Contents:
    """Walk over one shard of `length` bytes."""
    contents, refused, end = Contents(), Refused(), 0
    try:
        with reading.open_tar(file) as tar:
            for member in reading.tar_members(tar):
                end = member.offset_data + member.size
                if member.isfile() and not member.issparse() and end <= length:
                    _note(contents, refused, shard, member, file)
            contents.cut = _end(file, tar.offset)
    except tarfile.TarError as error:
        contents.cut = f"{error} (after byte {min(end, length)} of {length})"
    contents.unusable = list(refused.entries.values())
    return contents


def _wrong_name(name: PurePosixPath) -> str | None:
    """Why a member's name is none for a pair, if so."""
    text = str(name)
    if name.is_absolute() or ".." in name.parts or "\\" in text:
        return "absolute, or with .. or a backslash"
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):  # tarfile's for such a byte
        return "not UTF-8"
    return None


def _note(contents: Contents, refused: Refused, shard: str, member: tarfile.TarInfo, file: BinaryIO) -> None:
    name = PurePosixPath(member.name)
    key = str(name.with_name(name.name.partition(".")[0])) if name.name.partition(".")[0] else member.name
    suffix = name.name.partition(".")[2].lower()
    known: Mapping[str, object]
    if suffix in IMAGE_SUFFIXES:
        known = contents.images
    elif suffix == "txt":
        known = contents.captions
    else:
        return
    if wrong := _wrong_name(name):
        shown = member.name.encode("utf-8", "backslashreplace").decode()
        refused.add(key, suffix, Entry(shard, shown, Cause.UNSAFE, wrong))
    elif key in known:
        second = f"a second {member.name} at byte {member.offset}"
        refused.add(key, suffix, Entry(shard, key, Cause.DUPLICATE, second))
    elif suffix == "txt":
        file.seek(member.offset_data)
        contents.captions[key] = file.read(min(member.size, MAX_BYTES + 1))
    else:
        contents.images[key] = (member.offset_data, member.size)


def _end(file: BinaryIO, offset: int) -> str | None:
    """What is wrong with the end of a tar whose members end at `offset`; tarfile takes any end for the end."""
    file.seek(offset)
    size = 0
    while rest := file.read(CHUNK):
        if rest.strip(b"\0"):
            return f"no tar header at byte {offset}"
        size += len(rest)
    return f"no end mark at byte {offset}" if size < BLOCK else None
