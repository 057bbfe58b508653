"""Encoders: built from an architecture file, saved and loaded as open_clip `local-dir` folders."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from kd_distill.views import Preprocessing

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
Clip: TypeAlias = Any  # open_clip.model.CLIP or CustomTextCLIP; open_clip has no types
MODEL_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias"}
REFUSED = ("hf_", "pretrained")  # prefixes and words of keys that would make open_clip fetch something


def architectures() -> dict[str, Path]:
    """The architecture files that come with the package, by name."""
    folder = Path(str(resources.files("kd_distill"))) / "architectures"
    return {file.stem: file for file in sorted(folder.glob("*.json"))}


def read_architecture(name: str) -> dict[str, Any]:
    """The architecture called `name`, or the one in the file `name`, checked.

    Raises:
        ValueError: If there is none, or it holds what open_clip would fetch from elsewhere.
    """
    file = Path(name) if name.endswith(".json") else architectures().get(name)
    if file is None or not file.is_file():
        raise ValueError(f"Unknown architecture {name!r}. Known: {', '.join(architectures())}; or the path of a .json.")
    config = json.loads(file.read_text())
    check_architecture(config, str(file))
    return config


def check_architecture(config: Mapping[str, Any], where: str) -> None:
    """Refuse an open_clip model configuration with unknown keys, or with keys that lead to the network."""
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - config.keys()
    if missing or config.keys() - MODEL_KEYS:
        raise ValueError(
            f"{where}: expected the keys {sorted(MODEL_KEYS)}; missing {sorted(missing)}, "
            f"unknown {sorted(config.keys() - MODEL_KEYS)}."
        )
    for part in ("vision_cfg", "text_cfg"):
        for key, value in config[part].items():
            if value and (key.startswith(REFUSED[0]) or REFUSED[1] in key):
                raise ValueError(f"{where}: {part}.{key} = {value!r} would fetch weights; remove it.")


def build(config: Mapping[str, Any], seed: int) -> Clip:
    """A CLIP model with fresh weights that depend on `seed` alone."""
    from open_clip.model import CLIP, CustomTextCLIP

    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251  layers draw their initial weights from the global generator
        return (CustomTextCLIP if config.get("custom_text") else CLIP)(**arguments)


def image_size(config: Mapping[str, Any]) -> int:
    """Side of the model's input in pixels."""
    return int(config["vision_cfg"]["image_size"])


def save(folder: Path, model: Clip, config: Mapping[str, Any]) -> None:
    """Write `model` as an open_clip `local-dir` folder."""
    from safetensors.torch import save_file

    preprocessing = {
        "mean": OPENAI_MEAN,
        "std": OPENAI_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / CONFIG).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing}, indent=1) + "\n")
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS))


def load(folder: Path) -> tuple[Clip, dict[str, Any], Preprocessing]:
    """The model of an open_clip `local-dir` folder in eval mode, its configuration, and its preprocessing."""
    from safetensors.torch import load_file

    whole = json.loads((folder / CONFIG).read_text())
    config, preprocessing = whole["model_cfg"], whole["preprocess_cfg"]
    check_architecture(config, str(folder / CONFIG))
    model = build(config, seed=0)
    model.load_state_dict(load_file(str(folder / WEIGHTS)))
    view = Preprocessing(image_size(config), tuple(preprocessing["mean"]), tuple(preprocessing["std"]))
    return model.eval(), config, view


def preprocessing_of(config: Mapping[str, Any]) -> Preprocessing:
    """What a model trained here expects: its own size, CLIP's mean and std."""
    return Preprocessing(image_size(config), OPENAI_MEAN, OPENAI_STD)


def encode_text(model: Clip, tokens: Tensor) -> Tensor:
    """Un-normalised text embeddings of shape (b, d) from token ids of any length t up to the model's context.

    open_clip's own method takes the full context only. A causal text tower that pools the end token gives the same
    for shorter rows, at a cost that falls with t.
    """
    if tokens.shape[1] == getattr(model, "context_length", None) or not hasattr(model, "token_embedding"):
        return cast(Tensor, model.encode_text(tokens))
    t = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:t]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:t, :t]))
    return cast(Tensor, x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection)


class Tokenize:
    """Captions to token ids of one model, cut to the longest caption of the batch.

    Cutting is exact for text towers with a causal mask that pool the end token (CLIP's), and is done for those only.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        text = config["text_cfg"]
        self._tokenizer = SimpleTokenizer(context_length=text.get("context_length", 77))
        self._cut = not config.get("custom_text") and text.get("pool_type", "argmax") == "argmax"

    def __call__(self, captions: list[str]) -> Tensor:
        """int64 of shape (b, t)."""
        tokens: Tensor = self._tokenizer(captions)
        return tokens[:, : int(tokens.argmax(dim=1).max()) + 1] if self._cut else tokens


def describe(model: Clip, config: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the model's tags: parameter count in millions, width, patch tokens of the image tower."""
    vision = config["vision_cfg"]
    side = image_size(config) // vision.get("patch_size", 32)
    if vision.get("timm_model_name"):
        side = -(-image_size(config) // max(info["reduction"] for info in model.visual.trunk.feature_info))
    millions = sum(p.numel() for p in model.visual.parameters()) / 1e6
    return {"kd.params_m": f"{millions:.3f}", "kd.width": str(config["embed_dim"]), "kd.tokens": str(side * side)}
