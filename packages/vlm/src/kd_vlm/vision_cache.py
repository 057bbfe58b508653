"""Visual tokens on disk, found by the bytes of a picture: shards in safetensors that are mapped, never loaded.

The folder is described in the contract, so that others can read it with safetensors and JSON alone. A shard counts when
`shards.json` lists it; that file is replaced in one move, so readers need no lock and a kill loses one shard at most.

This file is the same in every package that has it; its source is contract/shared/vision_cache.py.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, StringConstraints
from safetensors.numpy import save
from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from .durable import write_whole
from .reading import checked, parse_json, read_as, read_json
from .tracking import IntegrityError

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "kd-vision-cache/1"
Precision = Literal["fp32", "fp16", "bf16"]
RAW: dict[str, tuple[str, Any]] = {
    "fp32": ("F32", np.float32),
    "fp16": ("F16", np.float16),
    "bf16": ("BF16", np.uint16),
}


class Described(TypedDict):
    """What `cache.json` says."""

    schema: Literal["kd-vision-cache/1"]
    of: dict[str, Any]
    tokens: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    precision: Precision


class Entry(TypedDict):
    """A shard as `shards.json` lists it."""

    file: Annotated[str, StringConstraints(pattern=r"^shard-[0-9]+\.safetensors$")]
    rows: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class Listed(TypedDict):
    """What `shards.json` says."""

    schema: Literal["kd-vision-cache/1"]
    shards: list[Entry]


class Held(TypedDict):
    """A tensor as the head of a shard describes it."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Head(TypedDict):
    """The head of a shard."""

    tokens: Held
    images: Held


@dataclass(frozen=True)
class Shard:
    """One file of a cache, mapped: `tokens` (n, p, w), bfloat16 as its bits in uint16, and `images` (n, 32) digests."""

    tokens: np.ndarray
    images: np.ndarray


class VisionCache:
    """The tokens that one tower gives for pictures, as far as they were computed."""

    def __init__(self, folder: Path, *, tokens: int, width: int, precision: Precision) -> None:
        """Open `folder`, which `create` made. Raises IntegrityError if a shard is not what was written."""
        self.folder, self.shape, self.precision = folder, (tokens, width), precision
        self.shards: list[Shard] = []
        self.index: dict[bytes, tuple[int, int]] = {}
        self.checked: dict[int, bool] = {}  # shards whose digest was compared
        self.refresh()

    @classmethod
    def create(
        cls, root: Path, about: Mapping[str, Any], *, tokens: int, width: int, precision: Precision
    ) -> "VisionCache":
        """The cache below `root` for what `about` says of tower, preprocessing and feature choice; made if missing."""
        described = {"schema": SCHEMA, "of": dict(about), "tokens": tokens, "width": width, "precision": precision}
        folder = root / hashlib.sha256(json.dumps([described], sort_keys=True).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "cache.json").is_file():
            with _locked(folder):
                write_whole(folder / "cache.json", (json.dumps(described, indent=1, sort_keys=True) + "\n").encode())
        return cls(folder, tokens=tokens, width=width, precision=precision)

    @classmethod
    def open(cls, folder: Path) -> "VisionCache":
        """The cache in `folder`. Raises FileNotFoundError if it is none, ValueError if it is of another kind."""
        file = folder / "cache.json"
        if not file.is_file():
            raise FileNotFoundError(f"Expected a cache of visual tokens in {folder}, found no cache.json.")
        described = read_as(Described, file)
        return cls(folder, tokens=described["tokens"], width=described["width"], precision=described["precision"])

    @classmethod
    def find(cls, root: Path, about: Mapping[str, Any], precision: Precision) -> "VisionCache | None":
        """The cache below `root` for what `about` says, whatever the number of its tokens; None where there is none."""
        folder = caches_of(root, about).get(precision)
        return cls.open(folder) if folder else None

    def refresh(self) -> None:
        """Take in the shards that were written since."""
        for entry in listed(self.folder)[len(self.shards) :]:
            shard = _mapped(self.folder / entry["file"], entry, self.shape, self.precision)
            for row, digest in enumerate(shard.images):
                self.index.setdefault(digest.tobytes(), (len(self.shards), row))
            self.shards.append(shard)

    def missing(self, images: Sequence[str]) -> list[str]:
        """Those of the digests (hex) that have no tokens yet, each once."""
        return [d for d in dict.fromkeys(images) if bytes.fromhex(d) not in self.index]

    def append(self, images: Sequence[str], tokens: np.ndarray) -> None:
        """Add a shard: digests (n) and tokens (n, p, w) as `as_raw` gives them. Only while `writing`."""
        entries = listed(self.folder)
        name = f"shard-{len(entries):05d}.safetensors"
        digests = np.frombuffer(bytes.fromhex("".join(images)), np.uint8).reshape(-1, 32)
        content = _safetensors(tokens, digests, self.precision)
        write_whole(self.folder / name, content)
        entry = {
            "file": name,
            "rows": len(images),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        whole = {"schema": SCHEMA, "shards": [*entries, entry]}
        write_whole(self.folder / "shards.json", (json.dumps(whole, indent=1) + "\n").encode())
        self.refresh()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer; waits for another one, whose shards are then here."""
        with _locked(self.folder):
            self.refresh()
            yield

    def sound(self, shard: int) -> bool:
        """Whether a shard has the digest that is listed; its file is read once for that."""
        if shard not in self.checked:
            entry = listed(self.folder)[shard]
            self.checked[shard] = file_digest_of(self.folder / entry["file"]) == entry["sha256"]
        return self.checked[shard]

    def verify(self) -> int:
        """Read every shard and compare digests; returns the number of pictures. Raises IntegrityError."""
        for entry in listed(self.folder):
            if (found := file_digest_of(self.folder / entry["file"])) != entry["sha256"]:
                raise IntegrityError(
                    f"{self.folder / entry['file']} has the digest {found[:12]}, expected {entry['sha256'][:12]}. "
                    "Remove the cache's folder; it is computed again."
                )
        return len(self.index)


def caches_of(root: Path, about: Mapping[str, Any]) -> dict[Precision, Path]:
    """The folders of the caches below `root` for what `about` says, by their precision."""
    wanted, found = (SCHEMA, json.loads(json.dumps(dict(about)))), dict[Precision, Path]()
    for file in sorted(root.glob("*/cache.json")):
        said = read_json(file)
        if isinstance(said, dict) and (said.get("schema"), said.get("of")) == wanted:
            found.setdefault(read_as(Described, file)["precision"], file.parent)
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock

    with FileLock(folder / ".lock"):
        yield


def file_digest_of(path: Path) -> str:
    """The sha256 of one file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def as_raw(tokens: "Tensor", precision: Precision) -> np.ndarray:
    """Tokens, rounded to a cache's precision, in its raw type.

    Raises:
        ValueError: If one is not finite then, as happens when fp16 overflows.
    """
    import torch

    types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    rounded = tokens.to(types[precision])
    if not torch.isfinite(rounded).all():
        raise ValueError(f"The tower's tokens are not finite in {precision}; take bf16 or fp32 for the vision cache.")
    raw: np.ndarray = (rounded.view(torch.uint16) if precision == "bf16" else rounded).numpy()
    return raw


def as_float32(raw: np.ndarray) -> "Tensor":
    """Tokens of a cache's raw type in float32."""
    import torch

    tensor = torch.from_numpy(raw)
    return (tensor.view(torch.bfloat16) if raw.dtype == np.uint16 else tensor).float()


def tower_digest(tower: Any) -> str:
    """A sha256 over the names, types, shapes and bytes of a torch module's parameters and buffers, by name."""
    import torch

    whole = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        value = value.detach().cpu().contiguous()
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def listed(folder: Path) -> list[Entry]:
    """The shards that count."""
    path = folder / "shards.json"
    return read_as(Listed, path, IntegrityError)["shards"] if path.is_file() else []


def _safetensors(tokens: np.ndarray, images: np.ndarray, precision: Precision) -> bytes:
    """The bytes of a shard. numpy has no bfloat16, so its name is put into the header in place of uint16's."""
    name, raw = RAW[precision]
    content = save({"images": np.ascontiguousarray(images), "tokens": np.ascontiguousarray(tokens, dtype=raw)})
    if name != "BF16":
        return content
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["tokens"]["dtype"] = name
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _mapped(path: Path, entry: Entry, shape: tuple[int, int], precision: Precision) -> Shard:
    name, raw = RAW[precision]
    try:
        if path.stat().st_size != entry["bytes"]:
            raise IntegrityError(f"{path} has {path.stat().st_size} bytes, expected {entry['bytes']}.")
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header: Head = checked(Head, parse_json(file.read(min(size, entry["bytes"])), str(path)), str(path))
        n = entry["rows"]
        if header["tokens"]["dtype"] != name or header["tokens"]["shape"] != [n, *shape]:
            raise IntegrityError(f"{path} holds {header['tokens']}, expected {name} of {[n, *shape]}.")
        return Shard(
            np.memmap(path, raw, "r", 8 + size + header["tokens"]["data_offsets"][0], (n, *shape)),
            np.memmap(path, np.uint8, "r", 8 + size + header["images"]["data_offsets"][0], (n, 32)),
        )
    except (OSError, ValueError, OverflowError) as error:  # a place that is not in the file, among others
        raise IntegrityError(
            f"{path} cannot be read: {error}. Remove the cache's folder; it is computed again."
        ) from None
