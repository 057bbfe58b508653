"""Folders of predictions: one JSON line an item, safe to stop at any moment, never mixed with something else's.

The manifest is written before the first prediction. Lines are appended and synced to disk; a line that was cut short by
a kill, and the lines of items that failed, are dropped when the folder is opened again.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from kd_evalsuite import durable
from kd_evalsuite.items import DataError
from kd_evalsuite.records import Failure, Manifest, Prediction

MANIFEST, RUN, LOCK = "manifest.json", "run.json", ".lock"


class LockedError(RuntimeError):
    """Another process writes to this folder."""


@contextmanager
def locked(folder: Path, *, wait: float = 0) -> Iterator[None]:
    """Make the folder and keep other writers out of it; the lock goes with the process, also when that is killed.

    Raises:
        LockedError: If another process still has it after `wait` seconds.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise LockedError(
            f"Another process writes predictions into {folder}. Wait for it, or choose another --out."
        ) from None
    try:
        yield
    finally:
        lock.release()


def open_folder(folder: Path, manifest: Manifest, *, replace: bool = False) -> None:
    """Make the folder for this manifest, or go on in one that has the same.

    Raises:
        DataError: If the folder holds predictions (at least one) under another manifest and `replace` is false.
    """
    if has_manifest(folder, manifest):
        return
    if not replace:
        refuse_other(folder, manifest)
    clear_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MANIFEST, dump(manifest.model_dump(by_alias=True)))


def has_manifest(folder: Path, manifest: Manifest) -> bool:
    """Whether what the folder holds is of this manifest."""
    return (folder / MANIFEST).exists() and read_manifest(folder) == manifest


def refuse_other(folder: Path, manifest: Manifest) -> None:
    """Leave predictions of something else alone.

    Raises:
        DataError: If the folder holds predictions (at least one) under another manifest, or under none.
    """
    found = read_manifest(folder) if (folder / MANIFEST).exists() else None
    if found == manifest or not any(file.stat().st_size for file in folder.glob("*.jsonl")):
        return
    what = differences(found, manifest) if found else f"no {MANIFEST} beside its .jsonl files"
    raise DataError(
        f"{folder} holds predictions of something else ({what}). Choose another --out, or pass --replace to start over."
    )


def clear_folder(folder: Path) -> None:
    """Remove predictions and what was made of them; the manifest after them, so that a kill leaves none without."""
    for file in (*sorted(folder.glob("*.jsonl")), folder / MANIFEST, folder / RUN, folder / "scores.json"):
        file.unlink(missing_ok=True)


def differences(a: Manifest, b: Manifest) -> str:
    """What differs, in words."""
    left, right = a.model_dump(), b.model_dump()
    parts = [f"{k}: {left[k]!r} there, {right[k]!r} here" for k in left if k != "tasks" and left[k] != right[k]]
    tasks = {**left["tasks"], **right["tasks"]}
    if changed := [t for t in tasks if left["tasks"].get(t) != right["tasks"].get(t)]:
        parts.append(f"data or length of {', '.join(changed)}")
    return "; ".join(parts)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of predictions.

    Raises:
        DataError: If there is none or it is not one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"Expected predictions with a {MANIFEST} in {folder}, found none.")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path}: not a manifest of predictions: {error}") from None


def manifest_beside(file: Path) -> Manifest | None:
    """How a file of predictions was made, where the folder that holds it says so.

    Raises:
        DataError: If there is a manifest of something else.
    """
    return read_manifest(file.parent) if file.is_file() and (file.parent / MANIFEST).is_file() else None


def read_predictions(path: Path, *, torn: bool = False) -> dict[str, Prediction]:
    """Predictions by item id; none if the file is missing. Items that failed have none.

    Raises:
        DataError: As `read_lines`.
    """
    return {line.id: line for line in read_lines(path, torn=torn) if isinstance(line, Prediction)}


def read_failures(path: Path, *, torn: bool = False) -> dict[str, Failure]:
    """What went wrong, by item id.

    Raises:
        DataError: As `read_lines`.
    """
    return {line.id: line for line in read_lines(path, torn=torn) if isinstance(line, Failure)}


def read_lines(path: Path, *, torn: bool = False) -> list[Prediction | Failure]:
    """All lines of a task's file; none if it is missing.

    Args:
        path: The file.
        torn: Whether a last line that was cut short is passed over, as a killed process leaves it and as it looks
            while it is being written.

    Raises:
        DataError: If a line is neither a prediction nor a failure, or an id comes twice.
    """
    found: dict[str, Prediction | Failure] = {}
    if not path.exists():
        return []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            kind = Failure if b'"error":' in line and b'"prediction":' not in line else Prediction
            try:
                one = kind.model_validate_json(line)
            except ValidationError as error:
                if torn and not line.endswith(b"\n"):
                    break
                raise DataError(f"{path}:{number}: not a prediction: {error}") from None
            if one.id in found:
                raise DataError(f"{path}:{number}: item {one.id!r} is there twice.")
            found[one.id] = one
    return list(found.values())


class PredictionFile:
    """Appends predictions of one task. Keep other processes out with `locked`.

    Attributes:
        done: What the file held when it was opened; failures of earlier runs are dropped from it, to be asked again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _drop_torn_line(path)
        lines = read_lines(path)
        self.done = {line.id: line for line in lines if isinstance(line, Prediction)}
        if len(self.done) < len(lines):
            write_whole(path, _text(self.done.values()))
        self._stream = path.open("ab", buffering=0)

    def append(self, lines: Iterable[Prediction | Failure]) -> None:
        """Write the lines and wait until they are on disk; on a disk that is full, none of them is left in part.

        Raises:
            OSError: As the disk says; what was written before stays.
        """
        whole = _text(lines).encode()
        end = self._stream.seek(0, os.SEEK_END)
        try:
            left = memoryview(whole)
            while left:
                left = left[self._stream.write(left) :]
            os.fsync(self._stream.fileno())
        except OSError as error:
            self._stream.truncate(end)
            error.filename = error.filename or str(self.path)
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(lines: Iterable[Prediction | Failure]) -> str:
    return "".join(dump(line.model_dump(), indent=None) for line in lines)


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as stream:
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            stream.truncate(whole)


def missing(ids: Sequence[str], done: Iterable[str], path: Path) -> list[str]:
    """The ids still to be predicted.

    Raises:
        DataError: If predictions are there for items that are not in the data.
    """
    done = set(done)
    if strange := done - set(ids):
        raise DataError(f"{path}: {len(strange)} predictions are of no item of this data, e.g. {sorted(strange)[0]!r}.")
    return [i for i in ids if i not in done]


def dump(value: object, indent: int | None = 1) -> str:
    """JSON with a final newline; Unicode as it is, lone surrogates, which UTF-8 cannot hold, as question marks."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "replace").decode() + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is on the disk whole or not at all."""
    durable.write_whole(path, text.encode())
