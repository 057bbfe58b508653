"""Folders of predictions: one JSON line an item, safe to stop at any moment, never mixed with something else's.

The manifest is written before the first prediction. Lines are appended and synced to disk; a line that was cut short by
a kill is dropped when the folder is opened again.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from kd_evalsuite.items import DataError
from kd_evalsuite.records import Manifest, Prediction

MANIFEST = "manifest.json"


class LockedError(RuntimeError):
    """Another process writes to this folder."""


def open_folder(folder: Path, manifest: Manifest, *, replace: bool = False) -> None:
    """Make the folder for this manifest, or go on in one that has the same.

    Raises:
        DataError: If the folder holds predictions (at least one) under another manifest and `replace` is false.
    """
    found = read_manifest(folder) if (folder / MANIFEST).exists() else None
    if found == manifest:
        return
    old = sorted(folder.glob("*.jsonl"))
    if old or found is not None:
        if not replace and any(file.stat().st_size for file in old):
            what = differences(found, manifest) if found else f"no {MANIFEST} beside its .jsonl files"
            raise DataError(
                f"{folder} holds predictions of something else ({what}). "
                "Choose another --out, or pass --replace to start over."
            )
        for file in (*old, folder / MANIFEST, folder / "scores.json"):
            file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MANIFEST, dump(manifest.model_dump(by_alias=True)))


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
        return Manifest.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DataError(f"{path}: not a manifest of predictions: {error}") from None


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Predictions by item id; none if the file is missing.

    Raises:
        DataError: If a line is not a prediction, or an id comes twice.
    """
    found: dict[str, Prediction] = {}
    if not path.exists():
        return found
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                one = Prediction.model_validate_json(line)
            except ValidationError as error:
                raise DataError(f"{path}:{number}: not a prediction: {error}") from None
            if one.id in found:
                raise DataError(f"{path}:{number}: item {one.id!r} is there twice.")
            found[one.id] = one
    return found


class PredictionFile:
    """Appends predictions of one task; only one process at a time.

    Raises:
        LockedError: If another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("a+b")
        try:
            _lock(self._stream.fileno())
            self._drop_torn_line()
            self.done = read_predictions(path)
        except BaseException:
            self._stream.close()
            raise

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write the lines and wait until they are on disk."""
        lines = [dump(p.model_dump(), indent=None) for p in predictions]
        self._stream.write("".join(lines).encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drop_torn_line(self) -> None:
        self._stream.seek(0)
        content = self._stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._stream.truncate(whole)


def _lock(descriptor: int) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError("Another process writes these predictions. Wait for it, or choose another --out.") from None


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
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
