"""A classification set: names, templates, and labelled images in one of three public layouts.

- webdataset, as CLIP_benchmark has it: `test/<i>.tar` (or tar files in the folder) with `<key>.cls` and `<key>.jpg`;
- ImageFolder: one folder a class with its images, as `val/n01440764/ILSVRC2012_val_00000293.JPEG`;
- parquet, as on the Hugging Face hub: columns `image` and `label`.

Names and templates are `classnames.txt` and `zeroshot_classification_templates.txt` of the folder, or ImageNet's.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kd_evalsuite.items import DataError
from kd_evalsuite.tables import utf8
from kd_evalsuite.zeroshot import imagenet
from kd_evalsuite.zeroshot.layouts import Labelled, image_files, of_folders, of_parquet, of_shards, parquet_files
from kd_evalsuite.zeroshot.shards import shards_in

Names = Literal["folder", "imagenet"]
Templates = Literal["folder", "imagenet", "simple"]


@dataclass(frozen=True, slots=True)
class ClassificationSet:
    """Names, templates and images of a set.

    Attributes:
        names: One a class.
        templates: Each with `{c}` where the name goes.
        layout: webdataset, ImageFolder or parquet.
        files: What the images are read from.
        read: The images, in the order of the files.
        numbers: Of an ImageFolder, the class of each file; elsewhere it stands in the files.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...]
    layout: str
    files: tuple[Path, ...]
    read: Callable[[], Iterator[Labelled]]
    numbers: tuple[int, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Digest of the files' names, sizes and times, and of how classes are numbered.

        Whether embeddings and labels of a former run are still theirs. Other words for the same classes leave it as it
        is: they change neither.
        """
        whole = hashlib.sha256(f"{len(self.names)} {self.numbers}\n".encode())
        for file in self.files:
            state = file.stat()
            whole.update(f"{file}\x1f{state.st_size}\x1f{state.st_mtime_ns}\n".encode())
        return whole.hexdigest()

    def __iter__(self) -> Iterator[Labelled]:
        return self.read()


def open_set(folder: Path, *, names: Names = "folder", templates: Templates = "folder") -> ClassificationSet:
    """The set in `folder`.

    Args:
        folder: Where it is.
        names: Whose class names.
        templates: Whose templates.

    Raises:
        DataError: If a file is missing, a template has no `{c}`, or the folder is of no known layout.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a classification set at {folder}, found none.")
    classes = imagenet.names() if names == "imagenet" else _lines(folder / "classnames.txt")
    if templates == "folder":
        prompts = _lines(folder / "zeroshot_classification_templates.txt")
    else:
        prompts = imagenet.templates(templates)
    if bad := [t for t in prompts if "{c}" not in t]:
        raise DataError(f"{folder}: expected {{c}} in every template, got {bad[0]!r}.")
    n = len(classes)
    if shards := shards_in(folder):
        return ClassificationSet(classes, prompts, "webdataset", shards, lambda: of_shards(shards, n))
    if tables := parquet_files(folder):
        return ClassificationSet(classes, prompts, "parquet", tables, lambda: of_parquet(tables, n))
    labelled = _labelled(folder, n)
    if not labelled:
        raise DataError(f"{folder}: expected tar files, parquet files, or one folder of images a class; found neither.")
    files, numbers = zip(*labelled, strict=True)
    return ClassificationSet(classes, prompts, "ImageFolder", files, lambda: of_folders(labelled), numbers)


def _labelled(folder: Path, n_classes: int) -> Sequence[tuple[Path, int]]:
    """(image, class) of an ImageFolder: its folders are WordNet ids, some of which may be missing, or the classes."""
    root = next((folder / name for name in ("val", "validation", "test") if (folder / name).is_dir()), folder)
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if folders and all(_is_wnid(p.name) for p in folders) and n_classes == imagenet.CLASSES:
        known = imagenet.class_numbers()
        if strange := [p.name for p in folders if p.name not in known]:
            raise DataError(f"{root}: {', '.join(strange[:3])} is no class of ImageNet-1k.")
        numbered = [(p, known[p.name]) for p in folders]
    elif folders and len(folders) != n_classes:
        raise DataError(f"{root}: expected {n_classes} folders, one a class, found {len(folders)}.")
    else:
        numbered = [(p, number) for number, p in enumerate(folders)]
    return [(file, number) for p, number in numbered for file in image_files(p)]


def _is_wnid(name: str) -> bool:
    return len(name) == 9 and name[0] == "n" and name[1:].isdigit()


def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise DataError(f"Expected {path}, found none; for ImageNet-1k set names and templates to `imagenet`.")
    lines = tuple(line.strip() for line in utf8(path).splitlines() if line.strip())
    if not lines:
        raise DataError(f"{path}: expected lines, found none.")
    return lines
