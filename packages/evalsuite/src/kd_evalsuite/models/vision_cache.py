"""What an encoder gave for images, kept on disk: found by encoder, preprocessing and image, shared by every VLM on it.

The folder is the one of contract/README.md, "Caches of visual tokens", which kd-vlm reads and writes, too: a second
evaluation of an encoder, or one after a training with it, encodes no image.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

SCHEMA = "kd-vision-cache/1"
SHARD_BYTES = 64 << 20  # of features that are held before they are written; what a kill can cost
PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def tower_digest(tower: torch.nn.Module) -> str:
    """The sha256 over names, types, shapes and bytes of a tower's parameters and buffers, by name."""
    whole = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def about(model: Any, image_processor: Any) -> dict[str, Any]:
    """What a Llava's or FastVLM's visual tokens are a function of besides the image: off the CPU, also the device."""
    config = model.config
    kind = config.vision_config.model_type.removesuffix("_model").removesuffix("_vision")
    full = config.model_type == "fast_vlm" or config.vision_feature_select_strategy != "default"
    size = image_processor.crop_size or image_processor.size
    return {
        "tower_sha256": tower_digest(model.model.vision_tower),
        "preprocessing": {key: value for key, value in image_processor.to_dict().items() if value is not None},
        "feature": {
            "kind": "map" if config.model_type == "fast_vlm" else kind,
            "layer": -1 if config.model_type == "fast_vlm" else config.vision_feature_layer,
            "first": 0 if full else 1,
            "size": size["height"],
        },
        **({} if model.device.type == "cpu" else {"device": model.device.type}),
    }


class VisionCache:
    """The features of images by the sha256 of their bytes, as far as they were computed.

    Args:
        root: Holds one folder for each tower, preprocessing, feature choice and precision.
        of: What `about` says.
        dtype: Of the features.
    """

    def __init__(self, root: Path, of: Mapping[str, Any], dtype: torch.dtype) -> None:
        self._root, self._of, self._precision = root, json.loads(json.dumps(dict(of))), PRECISIONS[dtype]
        self._folder = next((p.parent for p in sorted(root.glob("*/cache.json")) if self._is_mine(p)), None)
        self._index: dict[str, tuple[str, int]] = {}  # image -> file, row
        self._sound: dict[str, bool] = {}  # file -> whether it has the digest that is listed
        self._held: dict[str, Tensor] = {}
        if self._folder is not None:
            for entry in _listed(self._folder):
                self._take_in(self._folder, entry)

    def read(self, image: str) -> Tensor | None:
        """The features (tokens, width) of an image, or None. A shard that is damaged counts as absent."""
        if image in self._held:
            return self._held[image]
        file, row = self._index.get(image, ("", 0))
        if not file or self._folder is None or not self._verified(self._folder, file):
            return None
        with safe_open(self._folder / file, framework="pt") as shard:
            found: Tensor = shard.get_slice("tokens")[row]
        return found

    def write(self, features: Mapping[str, Tensor]) -> None:
        """Keep features (tokens, width) by image; they are on disk after `SHARD_BYTES` of them, or `flush`."""
        self._held |= {image: value.detach().cpu() for image, value in features.items()}
        if sum(value.nbytes for value in self._held.values()) >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one shard; waits for another writer."""
        if not self._held:
            return
        from filelock import FileLock

        from kd_evalsuite.predictions import write_whole

        tokens = torch.stack(list(self._held.values()))
        digests = torch.tensor([list(bytes.fromhex(image)) for image in self._held], dtype=torch.uint8)
        content = save({"images": digests, "tokens": tokens.contiguous()})
        folder = self._made(*tokens.shape[1:])
        with FileLock(folder / ".lock"):
            entries = _listed(folder)
            name = f"shard-{len(entries):05d}.safetensors"
            part = folder / f".{name}.part"
            part.write_bytes(content)
            part.replace(folder / name)
            said = {"file": name, "rows": len(digests), "bytes": len(content), "sha256": _sha256(content)}
            whole = {"schema": SCHEMA, "shards": [*entries, said]}
            write_whole(folder / "shards.json", json.dumps(whole, indent=1) + "\n")
        self._index |= {image: (name, row) for row, image in enumerate(self._held)}
        self._sound[name] = True
        self._held.clear()

    def _is_mine(self, path: Path) -> bool:
        said = json.loads(path.read_text(encoding="utf-8"))
        return (said.get("schema"), said.get("of"), said.get("precision")) == (SCHEMA, self._of, self._precision)

    def _made(self, tokens: int, width: int) -> Path:
        from kd_evalsuite.predictions import write_whole

        if self._folder is None:
            said = {
                "schema": SCHEMA, "of": self._of, "tokens": tokens, "width": width, "precision": self._precision,
            }  # fmt: skip
            self._folder = self._root / _sha256(json.dumps([said], sort_keys=True).encode())[:16]
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / "cache.json", json.dumps(said, indent=1, sort_keys=True) + "\n")
        return self._folder

    def _take_in(self, folder: Path, entry: Mapping[str, Any]) -> None:
        file = folder / entry["file"]
        if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
            return
        if file.stat().st_size != entry["bytes"]:
            return
        with safe_open(file, framework="pt") as shard:
            digests: Sequence[list[int]] = shard.get_tensor("images").tolist()
        for row, digest in enumerate(digests):
            self._index.setdefault(bytes(digest).hex(), (entry["file"], row))

    def _verified(self, folder: Path, file: str) -> bool:
        if file not in self._sound:
            said = next(entry["sha256"] for entry in _listed(folder) if entry["file"] == file)
            with (folder / file).open("rb") as stream:
                self._sound[file] = hashlib.file_digest(stream, "sha256").hexdigest() == said
        return self._sound[file]


def _listed(folder: Path) -> list[dict[str, Any]]:
    path = folder / "shards.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["shards"]) if path.is_file() else []


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
