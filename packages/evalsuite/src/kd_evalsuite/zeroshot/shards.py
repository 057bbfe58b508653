"""A classification set in CLIP_benchmark's webdataset layout, read as plain tar members: no decoder, no pipe.

`classnames.txt`, `zeroshot_classification_templates.txt` (with `{c}`), `test/nshards.txt`, `test/<i>.tar` with
`<key>.cls` (the class's number as text) and `<key>.jpg`, `.jpeg`, `.png` or `.webp`.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kd_evalsuite.items import DataError

IMAGES = {"jpg", "jpeg", "png", "webp"}
LARGEST = 64 << 20  # bytes of one member


@dataclass(frozen=True, slots=True)
class Labelled:
    """An encoded image and the number of its class."""

    key: str
    image: bytes
    label: int


@dataclass(frozen=True, slots=True)
class ClassificationSet:
    """Names and templates of a set, and its shards."""

    names: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Digest of names, templates and shards."""
        whole = hashlib.sha256("\n".join((*self.names, "", *self.templates)).encode())
        for shard in self.shards:
            with shard.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
        return whole.hexdigest()

    def __iter__(self) -> Iterator[Labelled]:
        for shard in self.shards:
            yield from _samples(shard, len(self.names))


def open_set(folder: Path) -> ClassificationSet:
    """The set in `folder`.

    Raises:
        DataError: If a file is missing, or a template has no `{c}`.
    """
    names = _lines(folder / "classnames.txt")
    templates = _lines(folder / "zeroshot_classification_templates.txt")
    if bad := [t for t in templates if "{c}" not in t]:
        raise DataError(f"{folder}: expected {{c}} in every template, got {bad[0]!r}.")
    text = _lines(folder / "test" / "nshards.txt")[0]
    if not text.isdigit():
        raise DataError(f"{folder / 'test' / 'nshards.txt'}: expected a number, got {text[:40]!r}.")
    shards = tuple(folder / "test" / f"{i}.tar" for i in range(int(text)))
    if absent := [s for s in shards if not s.is_file()]:
        raise DataError(f"Expected {len(shards)} shards in {folder / 'test'}, {absent[0].name} is missing.")
    return ClassificationSet(names, templates, shards)


def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise DataError(f"Expected {path}, found none.")
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not lines:
        raise DataError(f"{path}: expected lines, found none.")
    return lines


def _samples(shard: Path, n_classes: int) -> Iterator[Labelled]:
    """Members of one key stand together; each key has one image and one label."""
    key, image, label = "", None, None
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                stem, _, suffix = member.name.rpartition("/")[2].partition(".")
                if stem != key:
                    if key:
                        yield _sample(shard, key, image, label, n_classes)
                    key, image, label = stem, None, None
                if suffix in IMAGES | {"cls"}:
                    content = _content(tar, member, shard)
                    image, label = (image, content) if suffix == "cls" else (content, label)
    except tarfile.TarError as error:
        raise DataError(f"{shard}: not a readable tar file: {error}") from None
    if key:
        yield _sample(shard, key, image, label, n_classes)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> bytes:
    stream = tar.extractfile(member) if member.size <= LARGEST else None
    if stream is None:
        raise DataError(f"{shard}: {member.name} has {member.size} bytes; at most {LARGEST} are read.")
    content = stream.read()
    if len(content) < member.size:
        raise DataError(f"{shard}: cut short inside {member.name}.")
    return content


def _sample(shard: Path, key: str, image: bytes | None, label: bytes | None, n_classes: int) -> Labelled:
    if image is None or label is None:
        raise DataError(f"{shard}: {key} has no {'image' if image is None else 'label'}.")
    text = label.decode("ascii", "replace").strip()
    if not text.isdigit() or int(text) >= n_classes:
        raise DataError(f"{shard}: {key}.cls: expected a class below {n_classes}, got {text[:40]!r}.")
    return Labelled(key, image, int(text))
