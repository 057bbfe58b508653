"""Teacher embeddings of every view of every pair, computed once and shared by all students of that teacher."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kd_distill.batch import Targets, TeacherInfo

DESCRIPTION = "cache.json"


@dataclass(frozen=True)
class CacheInfo:
    """What the embeddings are of: a cache is used only where all of it fits."""

    schema: str
    teacher: dict[str, str]
    data_digest: str
    seed: int
    views: int
    crop_area: float
    pairs: int
    width: int
    scale: float

    def refuse_other(self, data_digest: str, seed: int, views: int, crop_area: float) -> None:
        """Raise ValueError unless these embeddings are of those crops of those pairs."""
        expected = {"data_digest": data_digest, "seed": seed, "views": views, "crop_area": crop_area}
        different = [f"{k}: cache {getattr(self, k)}, run {v}" for k, v in expected.items() if getattr(self, k) != v]
        if different:
            raise ValueError(
                f"The cache of {self.teacher['name']} is of other data ({'; '.join(different)}); "
                "run `distill cache` again."
            )


class TeacherCache:
    """A cache folder: `image.npy` (views, pairs, d), `text.npy` (pairs, d) in float16, and `cache.json`.

    Without `text.npy` it serves the terms that read images only.
    """

    def __init__(self, folder: Path) -> None:
        description = folder / DESCRIPTION
        if not description.is_file():
            raise FileNotFoundError(f"Expected a teacher cache in {folder}, found none; `distill cache` writes it.")
        self.info = CacheInfo(**json.loads(description.read_text()))
        self._image = np.load(folder / "image.npy", mmap_mode="r", allow_pickle=False)
        text = folder / "text.npy"
        self._text = np.load(text, mmap_mode="r", allow_pickle=False) if text.exists() else None

    @property
    def teacher(self) -> TeacherInfo:
        """What a student's loss must know of the teacher."""
        return TeacherInfo(self.info.teacher["name"], self.info.width, self.info.scale)

    @property
    def has_text(self) -> bool:
        """Whether it holds embeddings of captions."""
        return self._text is not None

    def rows(self, indices: np.ndarray, view: int) -> Targets:
        """Embeddings of images (in that view) and of texts; None for texts where there are none."""
        text = None if self._text is None else _unit(self._text[indices])
        return Targets(_unit(self._image[view, indices]), text)


def _unit(rows: np.ndarray) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(rows.astype(np.float32)), dim=-1)


def write_cache(
    folder: Path,
    info: CacheInfo,
    images: Iterator[tuple[int, int, Float[Tensor, "b d"]]],
    texts: Iterator[tuple[int, Float[Tensor, "b d"]]] | None,
) -> None:
    """Write a cache as a whole: `images` yields (view, first row, rows), `texts` (first row, rows), or is None."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    create = np.lib.format.open_memmap
    image = create(part / "image.npy", "w+", np.float16, (info.views, info.pairs, info.width))
    for view, row, z in images:
        image[view, row : row + len(z)] = z.numpy()
    image.flush()
    if texts is not None:
        text = create(part / "text.npy", "w+", np.float16, (info.pairs, info.width))
        for row, z in texts:
            text[row : row + len(z)] = z.numpy()
        text.flush()
    (part / DESCRIPTION).write_text(json.dumps(asdict(info), indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
