"""Checkpoints on disk: folders that exist as a whole or not at all, checked by digest before use.

`step-00000200/` holds `state.safetensors`, `values.json` and `manifest.json` (their sizes and sha256). It is written
beside its place, synced, and renamed in last, so that a kill at any moment leaves the steps before it as they were.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_distill.durable import sync_names
from kd_distill.reading import read_as
from kd_distill.tracking import IntegrityError

SCHEMA = "kd-checkpoint/1"
STATE, VALUES, MANIFEST = "state.safetensors", "values.json", "manifest.json"
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


@dataclass(frozen=True)
class Saved:
    """A checkpoint that has been read and verified."""

    step: int
    tensors: dict[str, Tensor]
    values: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, the last `keep` of them. One process writes."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        """Steps that have a folder, in order; not verified."""
        return sorted(int(p.name.removeprefix(PREFIX)) for p in self.folder.glob(f"{PREFIX}*"))

    def sweep(self) -> None:
        """Remove what a killed process left half written."""
        for orphan in self.folder.glob(f"{PART}*"):
            shutil.rmtree(orphan, ignore_errors=True)

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Path:
        """Commit a checkpoint, then drop the oldest ones.

        Args:
            step: Steps done.
            tensors: On any device; not shared in storage.
            values: Of JSON.

        Raises:
            StorageError: If the disk is full; the checkpoints before stand.
        """
        part, place = self.folder / f"{PART}{os.getpid()}-{step}", self._place(step)
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            _write(part, step, tensors, values)
            shutil.rmtree(place, ignore_errors=True)
            part.rename(place)
            sync_names(self.folder)
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            raise _explained(error, place, sum(t.nbytes for t in tensors.values())) from error
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._place(old))
        return place

    def newest(self) -> Saved | None:
        """The newest checkpoint whose files are the ones that were written; None where there is no checkpoint.

        A damaged one is set aside as `damaged-step-...` and said.

        Raises:
            IntegrityError: If there are checkpoints and all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step)
            except (OSError, ValueError, KeyError, TypeError) as error:
                place = self._place(step)
                log.warning("Checkpoint %s is damaged (%s); the one before it is taken.", place, error)
                aside = self.folder / f"{DAMAGED}{place.name}"
                shutil.rmtree(aside, ignore_errors=True)
                place.rename(aside)
        if steps:
            raise IntegrityError(
                f"All {len(steps)} checkpoints in {self.folder} were damaged; remove the folder to begin anew."
            )
        return None

    def _place(self, step: int) -> Path:
        return self.folder / f"{PREFIX}{step:08d}"

    def _read(self, step: int) -> Saved:
        from safetensors import SafetensorError
        from safetensors.torch import load

        place = self._place(step)
        manifest = read_as(Said, place / MANIFEST)
        if (manifest["schema"], manifest["step"], set(manifest["files"])) != (SCHEMA, step, {STATE, VALUES}):
            raise ValueError(f"{MANIFEST} is not one of step {step} and schema {SCHEMA}")
        content = {name: (place / name).read_bytes() for name in manifest["files"]}
        for name, data in content.items():
            expected = manifest["files"][name]
            if (len(data), hashlib.sha256(data).hexdigest()) != (expected["bytes"], expected["sha256"]):
                raise ValueError(f"{name} is not what was written: expected sha256 {expected['sha256'][:12]}")
        try:
            return Saved(step, load(content[STATE]), json.loads(content[VALUES]))
        except SafetensorError as error:
            raise ValueError(f"{STATE}: {error}") from None


def require_room(folder: Path, needed: int) -> None:
    """Raise StorageError unless `folder`'s disk has `needed` bytes free."""
    if (free := shutil.disk_usage(folder).free) < needed:
        raise StorageError(
            f"{folder}: two checkpoints need {needed / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free. Make room."
        )


def _write(folder: Path, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file(_with_storage_of_their_own(tensors), str(folder / STATE))
    (folder / VALUES).write_text(json.dumps(dict(values)))
    files = {}
    for name in (STATE, VALUES):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = {"bytes": file.tell(), "sha256": sha256}
    manifest = {"schema": SCHEMA, "step": step, "files": files}
    with (folder / MANIFEST).open("w") as file:
        file.write(json.dumps(manifest, separators=(",", ":")))
        file.flush()
        os.fsync(file.fileno())
    sync_names(folder)


def _with_storage_of_their_own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors takes: contiguous, and no two of one storage (tied weights are written twice)."""
    own: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().contiguous()
        own[name] = value.clone() if value.untyped_storage().data_ptr() in taken else value
        taken.add(own[name].untyped_storage().data_ptr())
    return own


def _explained(error: Exception, place: Path, needed: int) -> Exception:
    import errno

    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    if not full and not any(word in str(error) for word in FULL):
        return error
    free = 0
    with suppress(OSError):
        free = shutil.disk_usage(place.parent).free
    return StorageError(
        f"{place}: no room for a checkpoint of {needed / 1e6:.1f} MB ({free / 1e6:.0f} MB free, or a limit on the size "
        f"of files): {error}. The checkpoint before it stands; make room and run again."
    )
