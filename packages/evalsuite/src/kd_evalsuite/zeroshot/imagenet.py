"""ImageNet-1k's class names, prompt templates and class order, from the packages that carry them.

The 1000 names and 80 templates are those of Radford et al. (CLIP, 2021, as revised in its notebook), which open_clip
has as constants and CLIP_benchmark uses too; two names stand for two classes each (missile, sunglasses). The order of
classes is that of the sorted WordNet ids, which timm has as a list.
"""

from collections import Counter
from collections.abc import Sequence
from importlib import resources

from kd_evalsuite.items import DataError

CLASSES, SIZE = 1000, 50_000


def names() -> tuple[str, ...]:
    """The 1000 names; `pip install kd-evalsuite[clip]`."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def templates(which: str) -> tuple[str, ...]:
    """The 80 templates (`imagenet`) or the 7 that do nearly as well (`simple`), with `{c}` for the name."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    known = {"imagenet": OPENAI_IMAGENET_TEMPLATES, "simple": SIMPLE_IMAGENET_TEMPLATES}
    return tuple(template("{c}") for template in known[which])


def class_numbers() -> dict[str, int]:
    """WordNet id -> number of the class.

    Raises:
        DataError: If timm's list is not the sorted one of 1000 ids.
    """
    lines = (resources.files("timm.data._info") / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    if len(lines) != CLASSES or lines != sorted(lines):
        raise DataError(f"timm's imagenet_synsets.txt: expected {CLASSES} sorted WordNet ids, found {len(lines)}.")
    return {wnid: number for number, wnid in enumerate(lines)}


def shared_names(names: Sequence[str]) -> list[str]:
    """Names that stand for several classes: no classifier can tell these apart, so its ceiling is below 100 %."""
    return sorted(name for name, n in Counter(names).items() if n > 1)
