"""A teacher's cache is built block by block, in a folder beside the one that it will be.

Each file is written under another name, fsynced and renamed, then its sha256; so whatever stands there with a sha256
that fits is done, and a process that was killed goes on with what is missing. Several processes can share the work.
Whoever ends last writes the manifest and moves the folder to its place.
"""

import hashlib
import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kd_distill.cache import MANIFEST, Block, CacheInfo, blocks, files_of, manifest, names, read_manifest, sha256_of
from kd_distill.durable import sync_names, write_whole
from kd_distill.lock import sole_writer

Compute = Callable[[Block], Mapping[str, np.ndarray]]


class Work:
    """Where the files of an unfinished cache stand, and the sha256 of each. Those of another cache never meet them."""

    def __init__(self, folder: Path, info: CacheInfo) -> None:
        self.root = folder.with_name(folder.name + ".part")
        self.own = self.root / info.digest[:16]
        self.data, self.digests, self.old = self.own / "data", self.own / "digests", self.own / "old"

    def digest(self, name: str) -> str | None:
        """The sha256 of a file that was finished; None where it wasn't."""
        file = self.digests / name
        return file.read_text() if file.is_file() else None

    def is_done(self, name: str) -> bool:
        """Whether a file stands there and is as it was written."""
        file = self.data / name
        return file.is_file() and self.digest(name) == sha256_of(file)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, then its sha256."""
        write_whole(self.data / name, content)
        write_whole(self.digests / name, hashlib.sha256(content).hexdigest().encode())


def build(
    folder: Path,
    info: CacheInfo,
    compute: Compute,
    *,
    part: tuple[int, int] = (1, 1),
    replace: bool = False,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> bool:
    """Compute what is missing of a cache; True where it is complete and in `folder`.

    Args:
        folder: Of the cache.
        info: What it is of. A complete cache of the same is kept.
        compute: Gives the arrays of a block by file name, in the shapes of `files_of`. Called for missing blocks only.
        part: (i, n): this process computes every n-th block, from the i-th on, i from 1 to n.
        replace: Put it in the place of a cache of something else.
        progress: Called with (blocks done, blocks of this process).

    Raises:
        ValueError: If `folder` holds a cache of something else and `replace` is not set.
        FloatingPointError: If an embedding is not finite.
        LockHeldError: If another process builds the same part.
    """
    number, of = part
    if not 1 <= number <= of:
        raise ValueError(f"Expected a part i/n with i from 1 to n, got {number}/{of}.")
    if _holds(folder, info, replace):
        return True
    work = Work(folder, info)
    for each in (work.data, work.digests):
        each.mkdir(parents=True, exist_ok=True)
    own = list(blocks(info))[number - 1 :: of]
    with sole_writer(work.own / f"{number}-of-{of}"):
        for done, block in enumerate(own, 1):
            shapes = files_of(info, block)
            if not all(work.is_done(name) for name in shapes):
                arrays = compute(block)
                for name, shape in shapes.items():
                    work.write(name, _content(name, arrays[name], shape, block.start))
            progress(done, len(own))
    return _finish(folder, work, info, replace)


def _holds(folder: Path, info: CacheInfo, replace: bool) -> bool:
    """Whether `folder` is a complete cache of this already."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        found, _ = read_manifest(folder)
        found.refuse_other(info.model_dump(mode="json"))
    except (ValueError, RuntimeError):
        if replace:
            return False
        raise
    return True


def _content(name: str, array: np.ndarray, shape: tuple[int, ...], start: int) -> bytes:
    """The .npy file of an array in float16."""
    with np.errstate(over="ignore"):  # said below, with the pair
        half = array.astype(np.float16, copy=False)
    if half.shape != shape:
        raise ValueError(f"{name}: expected an array of shape {shape}, got {half.shape}.")
    finite = np.isfinite(half).reshape(len(half), -1).all(axis=1)
    if not finite.all():
        raise FloatingPointError(
            f"{name}: {(~finite).sum()} rows are not finite in float16, the first of pair "
            f"{start + int(np.flatnonzero(~finite)[0])}. Look at that pair, and at the teacher's precision."
        )
    content = io.BytesIO()
    np.lib.format.write_array(content, np.ascontiguousarray(half), allow_pickle=False)
    return content.getvalue()


def _finish(folder: Path, work: Work, info: CacheInfo, replace: bool) -> bool:
    """The manifest, and the folder moved to its place, where no file is missing."""
    from filelock import FileLock

    with FileLock(work.root / "finish.lock"):
        if _holds(folder, info, replace):  # another process was faster
            shutil.rmtree(work.own, ignore_errors=True)
            return True
        digests = {name: digest for name in names(info) if (digest := work.digest(name))}
        if len(digests) < len(names(info)):
            return False
        for file in work.data.iterdir():
            if file.name not in digests:  # of a process that was killed
                file.unlink()
        write_whole(work.data / MANIFEST, manifest(info, digests).encode())
        shutil.rmtree(work.old, ignore_errors=True)
        if folder.exists():
            folder.rename(work.old)
        work.data.rename(folder)
        sync_names(folder.parent)
        shutil.rmtree(work.own)
    return True
