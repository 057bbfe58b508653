"""The state and size of a data set in a word, without a look at its files."""

from collections.abc import Mapping
from typing import Any

from pipeline.data.board import gigabytes
from pipeline.data.spec import DataFile, Dataset


def state_of(spec: DataFile, name: str) -> str:
    """In a word; from the manifest and whether the folder exists."""
    there = spec.folder(name).is_dir()
    if spec.manifest(name).is_file():
        return "verified" if there else "elsewhere"  # verified on another machine
    if there:
        return "unverified"
    return "by hand" if all(source.hand for source in spec.datasets[name].sources) else "to fetch"


def size_of(dataset: Dataset, manifest: Mapping[str, Any] | None) -> str:
    """Gigabytes, as the manifest counts them; about how many, where there is none; empty where nobody knows."""
    if manifest:
        return gigabytes(manifest["bytes"])
    return f"~{dataset.gigabytes:g}" if dataset.gigabytes else ""
