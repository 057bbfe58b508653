"""Labelled images for zero-shot accuracy during training, in CLIP_benchmark's webdataset layout.

`classnames.txt` and `zeroshot_classification_templates.txt` (`{c}` is the class) stand beside `test/*.tar` with
`.jpg` or `.webp` and `.cls`.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from kd_distill.decode import decode
from kd_distill.ledger import BadSampleError
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
    names = tuple((folder / "classnames.txt").read_text().splitlines())
    templates = tuple((folder / "zeroshot_classification_templates.txt").read_text().splitlines())
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
    return LabelledImages(names, templates, torch.cat(images), torch.tensor(labels))


def _examples(shard: Path) -> Iterator[tuple[bytes, int]]:
    """(image bytes, label) of each key that has both, in the order of the shard."""
    waiting: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            kind = "image" if suffix in IMAGE_SUFFIXES else suffix
            file = tar.extractfile(member) if member.isfile() and kind in ("image", "cls") else None
            if file is None:
                continue
            found = waiting.setdefault(key, {})
            found[kind] = file.read()
            if found.keys() == {"image", "cls"}:
                yield found["image"], int(waiting.pop(key)["cls"])
