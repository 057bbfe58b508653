"""A stock checkpoint in the names and files of transformers 4.57, which transformers 5 reads as well.

transformers 5.6 dropped the level `vision_model.` from CLIP and SigLIP towers. A version before it (and vLLM) finds
none of the new names, says so in a log line, and goes on with a random tower. It also reads the base of rotary
positions from `rope_theta`, and falls back to 10000 where only the new `rope_parameters` are given. Both are silent,
and both give a wrong model. Tokenizer and processor are written in the older files too.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import (
    Any,
    NotRequired,  # pydantic asks for these below Python 3.12
)

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict

from kd_vlm.reading import checked, read_as

PREFIXED = ("clip_vision_model", "siglip_vision_model")
INDEX = "model.safetensors.index.json"
_TABLE = "relative_position_bias_table"
_COPIED = ("chat_template.jinja", "generation_config.json", "tokenizer.json")
_IMAGE_PROCESSORS = {"PerceptionLMImageProcessor": "PerceptionLMImageProcessorFast"}


class Typed(TypedDict, extra_items=Any):  # type: ignore[call-arg]
    """A part of a stock configuration."""

    model_type: str


class Text(Typed):
    """The part about the language model."""

    rope_parameters: NotRequired[dict[str, Any] | None]


class Stock(Typed):
    """What is read of `config.json`."""

    vision_config: Typed
    text_config: Text


class ImageProcessor(TypedDict, extra_items=Any):  # type: ignore[call-arg]
    """What is read of an image processor's configuration."""

    image_processor_type: str


def refuse_unknown(config: dict[str, Any]) -> None:
    """Whether transformers 4.57 has the class at all.

    Raises:
        ValueError: If not: FastVLM is younger.
    """
    if config["model_type"] == "fast_vlm":
        raise ValueError(
            "transformers 4.57 does not know fast_vlm, the stock class of timm maps (MobileViT, ConvNeXt): there is no "
            "legacy form of this model. Export it as it is; transformers 5 loads it."
        )


def write_legacy(source: Path, out: Path) -> None:
    """Write the stock checkpoint in `source` to the existing folder `out` in the older form.

    Raises:
        ValueError: If transformers 4.57 has no class for it.
    """
    config = _read(source / "config.json")
    checked(Stock, config, str(source / "config.json"))
    refuse_unknown(config)
    _write(out / "config.json", _old_config(config))
    _write_weights(source, out, _old_name if config["vision_config"]["model_type"] in PREFIXED else lambda name: name)
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copy(source / name, out / name)
    _write(out / "tokenizer_config.json", _old_tokenizer(_read(source / "tokenizer_config.json")))
    processor = _read(source / "processor_config.json")
    image = processor.pop("image_processor", None) or _read(source / "preprocessor_config.json")
    kind = checked(ImageProcessor, image, f"{source}, image_processor")["image_processor_type"]
    _write(out / "preprocessor_config.json", {**image, "image_processor_type": _IMAGE_PROCESSORS.get(kind, kind)})
    _write(out / "processor_config.json", processor)


def _old_name(name: str) -> str:
    place, found, rest = name.partition("vision_tower.")
    if not found or rest.startswith("vision_model."):
        return name
    return f"{place}vision_tower.vision_model.{rest}"


def _old_config(config: dict[str, Any]) -> dict[str, Any]:
    text = dict(config["text_config"])
    rope = text.get("rope_parameters") or {}
    if "rope_theta" in rope:
        text["rope_theta"] = rope["rope_theta"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        text["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else scaling
    return {**config, "text_config": text}


def _old_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in config.items() if k not in ("backend", "is_local", "local_files_only", "add_prefix_space")}
    extra = kept.pop("extra_special_tokens", None)
    if isinstance(extra, list):
        kept["additional_special_tokens"] = extra
    return {**kept, "tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}


def _write_weights(source: Path, out: Path, rename: Callable[[str], str]) -> None:
    for shard in sorted(source.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as file:
            tensors: dict[str, Tensor] = {rename(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            tensors |= {_index_name(k): _window_index(v) for k, v in tensors.items() if k.endswith(_TABLE)}
            save_file(tensors, out / shard.name, metadata=file.metadata())
    if (source / INDEX).is_file():
        index = _read(source / INDEX)
        shards = {rename(name): shard for name, shard in index["weight_map"].items()}
        index["weight_map"] = shards | {_index_name(k): v for k, v in shards.items() if k.endswith(_TABLE)}
        _write(out / INDEX, index)


def _index_name(table: str) -> str:
    return table.removesuffix(_TABLE) + "relative_position_index"


def _window_index(table: Tensor) -> Tensor:
    """Swin's (n * n, n * n) rows of a table of (2n - 1) ** 2 biases; older versions keep them with the weights."""
    n = (math.isqrt(len(table)) + 1) // 2
    row, column = torch.arange(n).repeat_interleave(n), torch.arange(n).repeat(n)
    down, right = row[:, None] - row + n - 1, column[:, None] - column + n - 1
    return down * (2 * n - 1) + right


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"Expected a stock checkpoint with {path.name} in {path.parent}, found none.")
    return read_as(dict[str, Any], path)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
