"""One folder of predictions made by several processes: each takes its share, and the shares are put together again."""

import importlib.metadata
import os
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kd_evalsuite.items import DataError, Item
from kd_evalsuite.predictions import (
    LOCK,
    MANIFEST,
    RUN,
    LockedError,
    clear_folder,
    differences,
    dump,
    has_manifest,
    locked,
    open_folder,
    read_failures,
    read_manifest,
    read_predictions,
    refuse_other,
    write_whole,
)
from kd_evalsuite.records import Manifest, Prediction

SHARDS = "shards"
WAIT = 60.0  # seconds that shares wait for each other where they start or end together; each takes a moment
SAID = ("prediction", "prompt_sha256", "image_sha256")  # of an item, however often and on whatever machine it is asked


class IncompleteError(RuntimeError):
    """Items have no prediction yet."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` of `count`, counted from 1. Items on the same images are in the same share."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/8`.

        Raises:
            DataError: If it is not such a fraction, from 1/n to n/n.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        index, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= index <= count:
            raise DataError(f"Expected a shard from 1/n to n/n, got {text!r}.")
        return cls(index, count)

    @classmethod
    def of_torchrun(cls) -> "Shard | None":
        """The share of this process where torchrun started several."""
        rank, world = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
        if not (rank.isdigit() and world.isdigit()) or int(world) < 2:
            return None
        return cls(int(rank) + 1, int(world))

    def folder(self, out: Path) -> Path:
        """Where this share's predictions lie."""
        return out / SHARDS / f"{self.index}-of-{self.count}"

    def part(self, items: Sequence[Item], key: Callable[[Item], Hashable]) -> list[Item]:
        """The items of this share; those of equal `key` are together."""
        groups: dict[Hashable, int] = {}
        return [i for i in items if groups.setdefault(key(i), len(groups)) % self.count == self.index - 1]


@contextmanager
def opened(out: Path, manifest: Manifest, shard: Shard | None = None, *, replace: bool = False) -> Iterator[Path]:
    """The folder that this process predicts into: `out`, or the shard's below it; locked, and of this manifest.

    `out` and all shares below it are of one manifest. With `replace`, what is of another is removed; what is of this
    one stays, so that several shares can be started with `replace`, together or one after the other.

    Raises:
        DataError: If `out` or a share holds predictions (at least one) of something else and `replace` is false.
        LockedError: If another process predicts into this folder, or into one that would be removed.
    """
    where = shard.folder(out) if shard else out
    with ExitStack() as mine:
        with ExitStack() as first:
            (first if shard else mine).enter_context(locked(out, wait=WAIT if shard else 0))
            others = [folder for folder in (out, *shares(out)) if not has_manifest(folder, manifest)]
            if not replace:
                for folder in others:
                    refuse_other(folder, manifest)
            _clear(out, [folder for folder in others if folder != where])
            if shard:
                mine.enter_context(locked(where))
            open_folder(where, manifest, replace=replace)
        yield where


def shares(out: Path) -> list[Path]:
    """The folders of shares below `out`, of whatever they are."""
    return sorted(folder for folder in (out / SHARDS).glob("*") if folder.is_dir())


def _clear(out: Path, folders: Sequence[Path]) -> None:
    """Remove what these folders hold; only while `out` is locked, so that no other share is just being opened."""
    below = [folder for folder in folders if folder != out]
    with ExitStack() as locks:
        for folder in below:
            locks.enter_context(locked(folder))
        for folder in folders:
            clear_folder(folder)
    for folder in below:
        (folder / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # it holds files of someone else
            folder.rmdir()


def predicted(folders: Sequence[Path], key: str) -> set[str]:
    """The items of a task that have a prediction in one of these folders."""
    return {item for folder in folders for item in read_predictions(folder / f"{key}.jsonl", torn=True)}


def write_run(folder: Path, how: Mapping[str, str]) -> None:
    """`run.json`: how the predictions were made; it does not decide whether predictions belong together."""
    versions = {}
    for name in ("kd-evalsuite", "torch", "transformers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    write_whole(folder / RUN, dump({**how, "versions": versions}))


def merge(folders: Sequence[Path], out: Path, *, replace: bool = False, wait: float = 0) -> Manifest:
    """Put shares together in `out`, which may itself hold some of the predictions.

    Raises:
        DataError: If the folders hold predictions of different things, or different replies to one item.
        IncompleteError: If items are missing or failed; nothing is written then.
        LockedError: If another process still writes to `out` after `wait` seconds.
    """
    manifests = {folder: read_manifest(folder) for folder in folders}
    manifest = manifests[folders[0]]
    for folder, other in manifests.items():
        if other != manifest:
            raise DataError(f"{folder} does not belong with {folders[0]}: {differences(other, manifest)}.")
    with locked(out, wait=wait):
        sources = [*([out] if has_manifest(out, manifest) else []), *folders]
        found = {key: _gathered(sources, key) for key in manifest.tasks}
        if lacking := [said for key in manifest.tasks if (said := _lacking(sources, key, manifest, found[key]))]:
            raise IncompleteError("\n".join(lacking))
        open_folder(out, manifest, replace=replace)
        for key, lines in found.items():
            text = "".join(dump(line.model_dump(), indent=None) for line in lines.values())
            write_whole(out / f"{key}.jsonl", text)
    return manifest


def merge_shards(out: Path, *, replace: bool = False) -> bool:
    """Put the shares below `out` together if that can be done now; the last of several processes does it.

    A share that ends while another one looks waits for it and looks again: the other may have looked too early.

    Raises:
        DataError: As `merge`.
    """
    folders = [folder for folder in shares(out) if (folder / MANIFEST).exists()]
    if not folders:  # another run has just removed them, to start over
        return False
    try:
        merge(folders, out, replace=replace, wait=WAIT)
    except (IncompleteError, LockedError):
        return False
    return True


def _gathered(sources: Sequence[Path], key: str) -> dict[str, Prediction]:
    """Each item's first prediction. An item that was asked twice has two times, which may differ; its reply may not."""
    found: dict[str, Prediction] = {}
    origin: dict[str, Path] = {}
    for folder in sources:
        for one in read_predictions(folder / f"{key}.jsonl", torn=True).values():
            first = found.setdefault(one.id, one)
            where = origin.setdefault(one.id, folder)
            if differ := [name for name in SAID if getattr(first, name) != getattr(one, name)]:
                raise DataError(
                    f"{key}: item {one.id!r} is both in {where} and in {folder}, and differs in {', '.join(differ)}. "
                    "Move away the folder whose predictions are not wanted."
                )
    return found


def _lacking(sources: Sequence[Path], key: str, manifest: Manifest, found: Mapping[str, Prediction]) -> str:
    rows = manifest.tasks[key].rows
    failed = {i for folder in sources for i in read_failures(folder / f"{key}.jsonl", torn=True)} - found.keys()
    if len(found) > rows:
        raise DataError(f"{key}: expected {rows} predictions, found {len(found)}.")
    return f"{key}: {rows - len(found)} of {rows} items have no prediction, {len(failed)} of them failed" * (
        len(found) < rows
    )
