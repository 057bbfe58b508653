"""Checkpoints on disk: folders that exist as a whole or not at all, checked by digest before use.

`step-00000200/` holds what the training wrote and `manifest.json`, the size and sha256 of each file. It is written
beside its place, synced, and renamed in last, so that a kill at any moment leaves the steps before it as they were.
A folder without a manifest that fits is no checkpoint, whatever its name.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from .durable import sync_names
from .reading import read_as
from .tracking import IntegrityError

SCHEMA, MANIFEST = "kd-checkpoint/1", "manifest.json"
PREFIX, PART, DAMAGED = "step-", ".part-", "damaged-"
FULL = ("os error 28", "os error 27", "os error 122")  # ENOSPC, EFBIG, EDQUOT, as safetensors words them

log = logging.getLogger(__name__)


class Listed(TypedDict):
    """A file as the manifest describes it."""

    sha256: str
    bytes: int


class Said(TypedDict):
    """What `manifest.json` says."""

    schema: str
    step: int
    files: dict[str, Listed]


class StorageError(OSError):
    """There is no room for what must be written."""


class Checkpoints:
    """The checkpoints of one training stage, the last `keep` of them. One process commits."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """Steps that have a folder, in order; not verified."""
        return sorted(int(p.name.removeprefix(PREFIX)) for p in self.folder.glob(f"{PREFIX}*"))

    def place(self, step: int) -> Path:
        return self.folder / f"{PREFIX}{step:08d}"

    def part(self, step: int) -> Path:
        return self.folder / f"{PART}{step}"

    def begin(self, step: int) -> Path:
        """An empty folder to write the checkpoint of `step` into; what a killed process left half written goes."""
        for orphan in self.folder.glob(f"{PART}*"):
            shutil.rmtree(orphan, ignore_errors=True)
        part = self.part(step)
        part.mkdir(parents=True)
        return part

    def commit(self, step: int) -> None:
        """Make what was written into `begin(step)` the checkpoint of `step`, and drop the oldest ones."""
        part, place = self.part(step), self.place(step)
        files = {p.relative_to(part).as_posix(): _synced(p) for p in sorted(part.rglob("*")) if p.is_file()}
        manifest = part / MANIFEST
        manifest.write_text(json.dumps({"schema": SCHEMA, "step": step, "files": files}, indent=1) + "\n")
        _synced(manifest)
        for folder in {part, *(p.parent for p in part.rglob("*"))}:
            sync_names(folder)
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
        sync_names(self.folder)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.place(old))

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """`begin`, `write` and `commit` in one process.

        Raises:
            StorageError: If the disk is full; the checkpoints before stand.
        """
        with room(self.place(step)):
            write(self.begin(step))
            self.commit(step)

    def newest(self) -> int | None:
        """The step of the newest checkpoint whose files are the ones that were written; None where there is none.

        A damaged one is set aside as `damaged-step-...` and said.

        Raises:
            IntegrityError: If there are checkpoints and all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                self.verify(step)
                return step
            except (OSError, ValueError, KeyError, TypeError) as error:
                place = self.place(step)
                log.warning("Checkpoint %s is damaged (%s); the one before it is taken.", place, error)
                aside = self.folder / f"{DAMAGED}{place.name}"
                shutil.rmtree(aside, ignore_errors=True)
                place.rename(aside)
        if steps:
            raise IntegrityError(
                f"All {len(steps)} checkpoints in {self.folder} were damaged; remove the folder to begin anew."
            )
        return None

    def verify(self, step: int) -> None:
        """Compare every file of a checkpoint with its manifest.

        Raises:
            ValueError: If one differs, is missing, or was not written by a training.
            FileNotFoundError: If there is no manifest.
        """
        place = self.place(step)
        manifest = read_as(Said, place / MANIFEST)
        if (manifest["schema"], manifest["step"]) != (SCHEMA, step):
            raise ValueError(f"{MANIFEST} is not one of step {step} and schema {SCHEMA}")
        present = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()} - {MANIFEST}
        if present != set(manifest["files"]):
            raise ValueError(f"its files are not those of {MANIFEST}: {sorted(present ^ set(manifest['files']))[:3]}")
        for name, expected in manifest["files"].items():
            if (found := _digest(place / name)) != expected:
                raise ValueError(f"{name} is not what was written: expected {expected}, found {found}")


class room:  # noqa: N801  reads as `with room(place):`
    """While inside, an error that says the disk is full becomes a StorageError that says what to do."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not _is_full(error):
            return
        for orphan in self.place.parent.glob(f"{PART}*"):
            shutil.rmtree(orphan, ignore_errors=True)
        free = 0
        with suppress(OSError):
            free = shutil.disk_usage(self.place.parent).free
        raise StorageError(
            f"{self.place}: no room for a checkpoint ({free / 1e6:.0f} MB free, or a limit on the size of files): "
            f"{error}. The checkpoint before it stands; make room and run again."
        ) from error


def require_room(folder: Path, needed: int) -> None:
    """Raise StorageError unless `folder`'s disk has `needed` bytes free."""
    folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise StorageError(
            f"{folder}: two checkpoints need {needed / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free. Make room."
        )


def _is_full(error: BaseException) -> bool:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return full or any(word in str(error) for word in FULL)


def _synced(file: Path) -> dict[str, int | str]:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return _digest(file)


def _digest(file: Path) -> dict[str, int | str]:
    with file.open("rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": stream.tell()}
