"""Features of images, each encoded once: kept in memory, and on disk where a folder is given.

On disk lies what the encoder gave before the VLM's own projector, so that every VLM on the same encoder reads it.
The form of the folder: contract/README.md, "Feature caches".
"""

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kd_evalsuite.models.base import Shown

KEPT_BYTES = 2 << 30  # features of this many bytes are kept in memory


def encoder_digest(tower: Any, *settings: Any) -> str:
    """The sha256 over names, types, shapes and bytes of an encoder's weights, and settings of how it is read."""
    whole = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(tower.state_dict().items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(_bytes(value))
    return whole.hexdigest()


def preprocessing_digest(image_processor: Any) -> str:
    """The sha256 of an image processor's settings."""
    return hashlib.sha256(json.dumps(image_processor.to_dict(), sort_keys=True, default=str).encode()).hexdigest()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Memory:
    """The features used last, up to `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def of(self, images: Sequence[Shown], make: Callable[[list[Shown]], list[Tensor]]) -> dict[str, Tensor]:
        """Features of each distinct image by digest; those that are not kept are made in one call."""
        wanted = {image.sha256: image for image in images}
        found = {key: self._kept[key] for key in wanted if key in self._kept}
        if new := [image for key, image in wanted.items() if key not in found]:
            found |= {image.sha256: row for image, row in zip(new, make(new), strict=True)}
        for key, value in found.items():
            if key not in self._kept:
                self._bytes += value.nbytes
            self._kept[key] = value
            self._kept.move_to_end(key)
        while self._bytes > KEPT_BYTES:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._bytes = 0


class FeatureFolder:
    """Features on disk under (encoder, preprocessing, image). Any number of processes may share one.

    Args:
        root: Holds one folder for each pair of encoder and preprocessing.
        encoder: Digest of the encoder.
        preprocessing: Digest of the preprocessing.
    """

    def __init__(self, root: Path, encoder: str, preprocessing: str) -> None:
        self.folder = root / f"{encoder[:16]}-{preprocessing[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"schema": "kd-features/1", "encoder": encoder, "preprocessing": preprocessing}
        _write(self.folder / "cache.json", (json.dumps(about, indent=1) + "\n").encode())

    def read(self, image: str) -> Tensor | None:
        """The features (tokens, width) of an image, or None where there are none that verify."""
        path = self._path(image)
        try:
            with safe_open(path, framework="pt") as file:
                value: Tensor = file.get_tensor("features")
                said = (file.metadata() or {}).get("sha256")
        except (FileNotFoundError, SafetensorError):
            return None
        return value if said == _sha256(value) else None

    def write(self, image: str, features: Tensor) -> None:
        """Keep the features of an image; a file is there whole or not at all."""
        value = features.detach().cpu().contiguous()
        path = self._path(image)
        path.parent.mkdir(exist_ok=True)
        _write(path, save({"features": value}, metadata={"sha256": _sha256(value)}))

    def _path(self, image: str) -> Path:
        return self.folder / image[:2] / f"{image}.safetensors"


def _sha256(value: Tensor) -> str:
    return hashlib.sha256(_bytes(value)).hexdigest()


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
