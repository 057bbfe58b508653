"""Which model `--model` names, and how it is loaded when it is needed."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kd_evalsuite.config import EvalParams
from kd_evalsuite.finding import find_model, require_device, use_threads
from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Answerer
from kd_evalsuite.records import ModelRef

if TYPE_CHECKING:
    from kd_evalsuite.tracking import Model


@dataclass(frozen=True, slots=True)
class Found:
    """A model that can be loaded.

    Attributes:
        ref: Name and digest.
        load: Makes the model; the first thing that takes long.
        encoder: The files of an open_clip encoder, which is for zero-shot classification alone.
    """

    ref: ModelRef
    load: Callable[[], Answerer]
    encoder: "Model | None" = None


def find(text: str, params: EvalParams) -> Found:
    """The model that `text` names, verified where it consists of files.

    Raises:
        DataError: If there is none, or it cannot answer.
        FileNotFoundError: If there is no such file, folder or registered model.
        IntegrityError: If its files are not the ones that a reference or the registry names.
    """
    if text.startswith(("http://", "https://")):
        return _endpoint(text, params)
    if text.startswith("plugin:"):
        from kd_evalsuite.models.plugin import find_plugin, load_plugin, plugin_ref

        point, argument = find_plugin(text.removeprefix("plugin:"))
        return Found(plugin_ref(point, argument), lambda: load_plugin(point, argument))
    return of_files(find_model(text), params)


def of_files(model: "Model", params: EvalParams) -> Found:
    """The model in a folder.

    Raises:
        DataError: If the folder holds neither a transformers checkpoint nor an open_clip encoder.
    """
    ref = ModelRef(kind=model.kind, name=model.name, sha256=model.sha256)
    encoder = (model.path / "open_clip_config.json").is_file()
    if not encoder and not (model.path / "config.json").is_file():
        raise DataError(
            f"{model.name}: expected a transformers image-text checkpoint (config.json) or an open_clip encoder "
            f"(open_clip_config.json), found neither in {model.path}."
        )
    return Found(ref, lambda: _checkpoint(model.path, params), model if encoder else None)


def _checkpoint(folder: Path, params: EvalParams) -> Answerer:
    device = device_of(params.device)
    require_device(device)
    from kd_evalsuite.models.vlm import TransformersVlm

    from transformers.utils import logging  # isort: skip

    logging.disable_progress_bar()
    use_threads(params.threads)
    return TransformersVlm(folder, device, params.dtype, params.feature_cache)


def device_of(name: str) -> str:
    """The device; `cuda` is the process's own one where torchrun started several on this machine."""
    rank = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{rank}" if name == "cuda" and rank.isdigit() else name


def _endpoint(text: str, params: EvalParams) -> Found:
    from kd_evalsuite.models.endpoint import Endpoint

    url, _, name = text.partition("#")
    asked = params.endpoint
    endpoint = Endpoint(url, name, concurrency=asked.concurrency, timeout=asked.timeout, tries=asked.tries)
    return Found(endpoint.ref, lambda: endpoint)
