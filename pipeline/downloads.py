"""Models that a study takes from elsewhere, and whether they are here.

No server is asked: the hub's cache and `models/` tell.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUB = "hf-hub:"
RELEASED = "--released"  # ends the name of a student that others published and `distill adopt` takes


@dataclass(frozen=True)
class Asset:
    """One model: what it is called where it comes from, `there`, `to fetch` or `by hand`, what for."""

    name: str
    state: str
    needed_for: str


def assets(studies: Iterable[Mapping[str, Any]], models: Path) -> list[Asset]:
    """Teachers, language models and published students of the parameter files of a study.

    Args:
        studies: Parameter files as mappings.
        models: The folder `models`, in which teachers and adopted students lie once they are taken.
    """
    studies = list(studies)
    teachers = [name for params in studies for name in params.get("study", {}).get("teachers", [])]
    cells = [cell for params in studies for cell in params.get("vlm", {}).get("cells", {}).values()]
    return [*_teachers(teachers, models), *_language_models(cells), *_published(cells, models)]


def _teachers(names: Iterable[str], models: Path) -> Iterator[Asset]:
    from kd_distill.teachers import TEACHERS

    for name in names:
        taken = any(models.glob(f"*/teachers/teacher-{name}"))
        hub = TEACHERS[name].hub
        yield Asset(hub, "there" if taken or in_cache(hub) else "to fetch", f"teacher {name}")


def _language_models(cells: Iterable[Mapping[str, Any]]) -> Iterator[Asset]:
    for lm, count in Counter(cell["lm"].removeprefix(HUB) for cell in cells if cell["lm"].startswith(HUB)).items():
        yield Asset(lm, "there" if in_cache(lm) else "to fetch", f"language model of {count} VLMs")


def _published(cells: Iterable[Mapping[str, Any]], models: Path) -> Iterator[Asset]:
    for encoder in dict.fromkeys(Path(cell["encoder"]).stem for cell in cells):
        if encoder.endswith(RELEASED):
            there = (models / "adopted" / encoder).is_dir()
            yield Asset(encoder, "there" if there else "by hand", "a published student, taken with `distill adopt`")


def in_cache(address: str) -> bool:
    """Whether the hub's cache holds a snapshot of `owner/name[@revision]`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, _, revision = address.partition("@")
    try:
        snapshot_download(repo, revision=revision or None, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True
