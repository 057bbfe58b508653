"""The heads that a student was distilled through: from its model folder, or from a checkpoint of its training."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_analysis.reading import read_as, weights_errors

HEADS = "heads.safetensors"  # in a model folder: <teacher>.image.weight, <teacher>.image.bias
STATE, MANIFEST = "state.safetensors", "manifest.json"  # in a checkpoint: task.heads.<teacher>.image.weight
KEY = re.compile(r"(?:task\.heads\.)?(?P<teacher>[^.]+)\.image\.(?P<part>weight|bias)$")


class Listed(TypedDict, extra_items=Any):  # type: ignore[call-arg]
    """A file of a checkpoint."""

    sha256: str


class Manifest(TypedDict, extra_items=Any):  # type: ignore[call-arg]
    """What is read of a checkpoint's manifest."""

    files: dict[str, Listed]


@dataclass(frozen=True)
class Head:
    """A linear map of the student's embeddings (before normalisation) into a teacher's space."""

    weight: Float[np.ndarray, "d_teacher d_student"]
    bias: Float[np.ndarray, " d_teacher"]


def read_heads(path: Path) -> dict[str, Head]:
    """Heads by the registered name of their teacher; none where the folder holds none.

    Args:
        path: A model folder with `heads.safetensors`, a checkpoint folder, or a file of either kind.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If a checkpoint's file is not the one that its manifest names, or holds half a head.
    """
    file = _file_of(path)
    if file is None:
        return {}
    from safetensors import safe_open

    found: dict[str, dict[str, np.ndarray]] = {}
    with weights_errors(file), safe_open(file, framework="numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118  not a mapping
            if match := KEY.fullmatch(name):
                found.setdefault(match["teacher"], {})[match["part"]] = tensors.get_tensor(name)
    for teacher, parts in found.items():
        if parts.keys() != {"weight", "bias"}:
            raise ValueError(f"{file}: expected weight and bias of the head to {teacher}, found {sorted(parts)}.")
    return {teacher: Head(parts["weight"], parts["bias"]) for teacher, parts in found.items()}


def _file_of(path: Path) -> Path | None:
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"Expected a model folder, a checkpoint or a file of heads at {path}, found nothing.")
    if (path / STATE).is_file():
        _verify(path)
        return path / STATE
    return path / HEADS if (path / HEADS).is_file() else None


def _verify(checkpoint: Path) -> None:
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        raise ValueError(f"{checkpoint}: expected a checkpoint with {MANIFEST}, found none.")
    files = read_as(Manifest, manifest)["files"]
    if STATE not in files:
        raise ValueError(f"{manifest}: expected {STATE} among its files, found {', '.join(files) or 'none'}.")
    expected = files[STATE]["sha256"]
    with (checkpoint / STATE).open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != expected:
        raise ValueError(f"{checkpoint / STATE}: expected sha256 {expected[:12]}, found {actual[:12]}.")
