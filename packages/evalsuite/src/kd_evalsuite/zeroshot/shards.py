"""Webdataset shards as CLIP_benchmark writes them, read as plain tar members: no decoder, no pipe.

`test/nshards.txt`, `test/<i>.tar` with `<key>.cls` (the class's number as text) and `<key>.jpg`, `.jpeg`, `.png` or
`.webp`.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from kd_evalsuite.items import DataError
from kd_evalsuite.reading import open_tar, tar_members
from kd_evalsuite.zeroshot.layouts import Labelled

IMAGES = {"jpg", "jpeg", "png", "webp"}
LARGEST = 64 << 20  # bytes of one member


def shards_in(folder: Path) -> tuple[Path, ...]:
    """The tar files of a set: as many as `test/nshards.txt` says, or all in `test` or in the folder; perhaps none.

    Raises:
        DataError: If there are fewer than there should be.
    """
    said = folder / "test" / "nshards.txt"
    if not said.is_file():
        return tuple(sorted((folder / "test").glob("*.tar"))) or tuple(sorted(folder.glob("*.tar")))
    text = said.read_text(encoding="utf-8").strip()
    if not text.isdigit():
        raise DataError(f"{said}: expected a number, got {text[:40]!r}.")
    shards = tuple(folder / "test" / f"{i}.tar" for i in range(int(text)))
    if absent := [s for s in shards if not s.is_file()]:
        raise DataError(f"Expected {len(shards)} shards in {folder / 'test'}, {absent[0].name} is missing.")
    return shards


def samples(shard: Path, n_classes: int) -> Iterator[Labelled]:
    """The samples of one shard. Members of one key stand together; each key has one image and one label."""
    key, image, label = "", None, None
    try:
        with open_tar(shard) as tar:
            for member in tar_members(tar):
                if not member.isfile() or member.issparse():
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
    if any("\ud800" <= letter <= "\udfff" for letter in key):  # tarfile's for a byte that is no text
        raise DataError(f"{shard}: {key.encode('utf-8', 'backslashreplace').decode()}: a name that is not UTF-8.")
    if image is None or label is None:
        raise DataError(f"{shard}: {key} has no {'image' if image is None else 'label'}.")
    text = label.decode("ascii", "replace").strip()
    if not text.isdigit() or int(text) >= n_classes:
        raise DataError(f"{shard}: {key}.cls: expected a class below {n_classes}, got {text[:40]!r}.")
    return Labelled(key, image, int(text))
