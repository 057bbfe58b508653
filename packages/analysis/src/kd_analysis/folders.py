"""What a model's folder says of itself, without loading it."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import (
    Any,
    NotRequired,  # pydantic asks for these below Python 3.12
)

from typing_extensions import TypedDict

from kd_analysis.reading import read_as

CONFIG = "open_clip_config.json"


class Model(TypedDict, extra_items=Any):  # type: ignore[call-arg]
    """What is read of `model_cfg`."""

    embed_dim: int


class Config(TypedDict, extra_items=Any):  # type: ignore[call-arg]
    """What is read of `open_clip_config.json`."""

    model_cfg: Model
    preprocess_cfg: NotRequired[dict[str, Any]]


def is_vlm(folder: Path) -> bool:
    """Whether it is a transformers folder, and no open_clip one."""
    return (folder / "config.json").is_file() and not (folder / CONFIG).is_file()


def config_of(folder: Path) -> dict[str, Any]:
    """`open_clip_config.json`.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"Expected an open_clip model folder at {folder}, found no {CONFIG} in it.")
    return dict(read_as(Config, path))


def architecture(folder: Path) -> str | None:
    """What decides an untrained model: architecture and preprocessing, as canonical JSON; None for a VLM."""
    return None if is_vlm(folder) else json.dumps(config_of(folder), sort_keys=True)


def look(folder: Path) -> str:
    """What decides how an image is prepared, besides the model's own files."""
    if is_vlm(folder):
        return "its own processor"
    return json.dumps(config_of(folder).get("preprocess_cfg", {}), sort_keys=True)


def width(folder: Path) -> int | None:
    """Of the embeddings; None for a VLM."""
    return None if is_vlm(folder) else int(config_of(folder)["model_cfg"]["embed_dim"])


def untrained_digest(folder: Path, seed: int) -> str:
    """What an untrained model's features depend on, for want of weights."""
    text = json.dumps([architecture(folder), seed, version("torch"), version("open_clip_torch"), version("timm")])
    return f"untrained-{hashlib.sha256(text.encode()).hexdigest()}"
