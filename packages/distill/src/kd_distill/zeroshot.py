"""Labelled images for zero-shot accuracy during training, in CLIP_benchmark's webdataset layout.

`classnames.txt` and `zeroshot_classification_templates.txt` (`{c}` is the class) stand beside `test/*.tar` with
`.jpg` or `.webp` and `.cls`.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from kd_distill.decode import decode
from kd_distill.ledger import BadSampleError
from kd_distill.reading import open_tar, tar_members
from kd_distill.shards import IMAGE_SUFFIXES
from kd_distill.views import Preprocessing

LIMIT = 2000  # images; the whole test set is evalsuite's


@dataclass(frozen=True)
class LabelledImages:
    """Whole images as one model reads them, their labels, and what the classes are called."""

    names: tuple[str, ...]
    templates: tuple[str, ...]
    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]

    def prompts(self) -> list[str]:
        """Every template of every class, class by class."""
        return [template.replace("{c}", name) for name in self.names for template in self.templates]


def read_labelled(folder: Path, preprocessing: Preprocessing, limit: int = LIMIT) -> LabelledImages:
    """The first `limit` images of each shard's share of a folder.

    Raises:
        FileNotFoundError: If names, templates or shards are missing.
        ValueError: If a label is no class, or an image cannot be used.
    """
    names, templates = _lines(folder / "classnames.txt"), _lines(folder / "zeroshot_classification_templates.txt")
    shards = sorted((folder / "test").glob("*.tar"))
    if not shards:
        raise FileNotFoundError(f"Expected labelled shards (*.tar) in {folder / 'test'}, found none.")
    images, labels = [], []
    for shard in shards:
        for _, (content, label) in zip(range(-(-limit // len(shards))), _examples(shard), strict=False):
            if not 0 <= label < len(names):
                raise ValueError(f"{shard}: expected labels below {len(names)} (classnames.txt), got {label}.")
            try:
                images.append(preprocessing([decode(content)], [None]))
            except BadSampleError as bad:
                raise ValueError(f"{shard}: {bad}") from None
            labels.append(label)
    if not images:
        raise ValueError(
            f"Expected labelled images in the shards of {folder / 'test'}, {shards[0].name} ...: found none."
        )
    return LabelledImages(names, templates, torch.cat(images), torch.tensor(labels))


def _lines(file: Path) -> tuple[str, ...]:
    try:
        return tuple(file.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected UTF-8: {error}.") from None


def _examples(shard: Path) -> Iterator[tuple[bytes, int]]:
    """(image bytes, label) of each key that has both, in the order of the shard."""
    waiting: dict[str, dict[str, bytes]] = {}
    length = shard.stat().st_size
    try:
        with open_tar(shard) as tar:
            for member in tar_members(tar):
                key, _, suffix = member.name.partition(".")
                kind = "image" if suffix in IMAGE_SUFFIXES else suffix
                file = tar.extractfile(member) if member.isfile() and kind in ("image", "cls") else None
                if file is None:
                    continue
                if member.issparse() or member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"{member.name} does not lie in the file as a whole")
                found = waiting.setdefault(key, {})
                found[kind] = file.read()
                if found.keys() == {"image", "cls"}:
                    yield found["image"], _label(waiting.pop(key)["cls"], f"{shard}: {member.name}")
    except tarfile.TarError as error:
        raise ValueError(f"{shard}: not a readable tar file: {error}") from None


def _label(text: bytes, where: str) -> int:
    if not re.fullmatch(rb"\s*\d{1,9}\s*", text):
        raise ValueError(f"{where}: expected the number of a class, got {text[:40]!r}.")
    return int(text)
