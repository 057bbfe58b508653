"""Benchmarks from the Hugging Face hub: fetched when asked, at a commit, with the digest of every file written down.

`pip install kd-evalsuite[hub]`. Nothing else here reaches the hub: a fetched benchmark is a folder like any other.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_evalsuite.items import DataError
from kd_evalsuite.predictions import write_whole
from kd_evalsuite.reading import read_json
from kd_evalsuite.tasks import task_named

SOURCE = ".source.json"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the files of a folder came from.

    Attributes:
        dataset: The hub's name of the data set.
        revision: The commit.
        files: sha256 by name.
    """

    dataset: str
    revision: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Api:
    """What is asked of the hub: (dataset, revision) -> commit, and (dataset, commit, patterns, folder) -> files."""

    commit: Callable[[str, str | None], str]
    download: Callable[[str, str, tuple[str, ...], Path], object]


def fetch(
    key: str, root: Path, *, revision: str | None = None, dataset: str | None = None, api: Api | None = None
) -> Path:
    """Bring the files of a benchmark to `root`/`key`; a folder that was fetched before stays at its commit.

    Args:
        key: The benchmark.
        root: One folder a benchmark.
        revision: Another commit, branch or tag than the pinned one.
        dataset: Another copy of the data set with the same files.
        api: The hub; None is the real one.

    Raises:
        DataError: If the folder holds files from elsewhere, or the data set lacks the files that are needed.
        ModuleNotFoundError: If huggingface_hub is not installed.
    """
    task = task_named(key)
    folder = root / (task.folder or key)
    name = dataset or task.hub.dataset
    before = read_source(folder) if (folder / SOURCE).is_file() else None
    if before is None and folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} holds files that were not fetched; choose another --data, or move them away.")
    api = api or real_api()
    wanted = revision or task.hub.revision or (before.revision if before else None)
    commit = api.commit(name, wanted)
    if before and (before.dataset, before.revision) != (name, commit):
        raise DataError(
            f"{folder} was fetched from {before.dataset}@{before.revision[:8]}, asked for is {name}@{commit[:8]}. "
            "Choose another --data, or remove the folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    api.download(name, commit, task.hub.files, folder)
    files = _digests(folder)
    if not files:
        raise DataError(f"{name}@{commit[:8]} has no {', '.join(task.hub.files)}; name another --dataset.")
    source = {"dataset": name, "revision": commit, "files": files}
    write_whole(folder / SOURCE, json.dumps(source, indent=1, sort_keys=True) + "\n")
    return folder


def read_source(folder: Path) -> Source:
    """What a fetched folder says of itself.

    Raises:
        DataError: If it does not say it properly.
    """
    try:
        found: dict[str, Any] = read_json(folder / SOURCE, DataError)
        return Source(found["dataset"], found["revision"], dict(found["files"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / SOURCE}: not the record of a fetched data set: {error!r}") from None


def _digests(folder: Path) -> dict[str, str]:
    from kd_evalsuite.tables import data_files

    found = {}
    for file in data_files(folder):
        with file.open("rb") as stream:
            found[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def real_api() -> Api:
    """The hub itself; asking for it is what permits the network in this process.

    Raises:
        ModuleNotFoundError: If huggingface_hub is not installed.
    """
    os.environ["HF_HUB_OFFLINE"] = "0"
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ModuleNotFoundError:
        raise ModuleNotFoundError("Fetching needs `pip install kd-evalsuite[hub]`", name="huggingface_hub") from None

    def commit(dataset: str, revision: str | None) -> str:
        return str(HfApi().dataset_info(dataset, revision=revision).sha)

    def download(dataset: str, revision: str, patterns: tuple[str, ...], folder: Path) -> object:
        return snapshot_download(
            dataset, repo_type="dataset", revision=revision, allow_patterns=list(patterns), local_dir=folder
        )

    return Api(commit, download)
