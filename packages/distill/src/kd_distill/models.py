"""Encoders: built from an architecture file, saved and loaded as open_clip `local-dir` folders."""

import json
import shutil
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from kd_distill.freeze import Tower
from kd_distill.reading import read_json as read_json
from kd_distill.reading import weights_errors
from kd_distill.schema import OPENAI_MEAN, OPENAI_STD, check_architecture, check_preprocessing
from kd_distill.text import TOKENIZER_FILES
from kd_distill.text import Tokenize as Tokenize
from kd_distill.text import encode_text as encode_text
from kd_distill.towers import patch_grid
from kd_distill.views import Preprocessing

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
Clip: TypeAlias = Any  # open_clip.model.CLIP or CustomTextCLIP; open_clip has no types


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
    config: dict[str, Any] = read_json(file)
    check_architecture(config, str(file))
    return config


def build(config: Mapping[str, Any], seed: int) -> Clip:
    """A CLIP model with fresh weights that depend on `seed` alone."""
    from open_clip.model import CLIP, CustomTextCLIP

    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251  layers draw their initial weights from the global generator
        return (CustomTextCLIP if config.get("custom_text") else CLIP)(**arguments)


def outline(config: Mapping[str, Any]) -> Clip:
    """The model without memory for its weights (torch's meta device), in eval mode: to count and to measure."""
    with torch.device("meta"):
        return build(config, seed=0).eval()


def image_size(config: Mapping[str, Any]) -> int:
    """Side of the model's input in pixels."""
    return int(config["vision_cfg"].get("image_size", 224))


def save(
    folder: Path,
    model: Clip,
    config: Mapping[str, Any],
    preprocessing: Preprocessing | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Write `model` as an open_clip `local-dir` folder.

    Args:
        folder: Where to; it exists.
        model: What to write.
        config: Its open_clip configuration.
        preprocessing: Its own; None: what a model trained here expects.
        tokenizer: Folder with the files of its tokenizer; None where that is CLIP's.
    """
    from safetensors.torch import save_file

    if config["text_cfg"].get("hf_tokenizer_name"):
        if tokenizer is None:
            raise ValueError(f"{folder}: the model has a tokenizer of its own; say where its files lie.")
        for name in TOKENIZER_FILES:
            shutil.copy(tokenizer / name, folder / name)
    view = preprocessing or preprocessing_of(config)
    fields = ("mean", "std", "interpolation", "resize_mode")
    whole = {"model_cfg": config, "preprocess_cfg": {name: getattr(view, name) for name in fields}}
    (folder / CONFIG).write_text(json.dumps(whole, indent=1) + "\n")
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS))


def load(folder: Path) -> tuple[Clip, dict[str, Any], Preprocessing]:
    """The model of an open_clip `local-dir` folder in eval mode, its configuration, and its own preprocessing.

    `Tokenize(config, folder)` is its tokenizer.

    Raises:
        FileNotFoundError: If a file of the folder is missing.
        ValueError: If the configuration is not accepted (`kd_distill.schema`), or the weights are not the model's.
    """
    from safetensors.torch import load_file

    config, view = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"Expected an open_clip model folder at {folder}, found no {WEIGHTS} in it.")
    model = build(config, seed=0)
    with weights_errors(folder / WEIGHTS):
        weights = load_file(str(folder / WEIGHTS))
    fill(model, weights, str(folder / WEIGHTS))
    return model.eval(), config, view


def read_config(folder: Path) -> tuple[dict[str, Any], Preprocessing]:
    """The checked model configuration of a folder, and the preprocessing; raises as `load`."""
    file = folder / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"Expected an open_clip model folder at {folder}, found no {CONFIG} in it.")
    whole = read_json(file)
    if not isinstance(whole, dict) or not {"model_cfg", "preprocess_cfg"} >= whole.keys() >= {"model_cfg"}:
        got = list(whole) if isinstance(whole, dict) else whole
        raise ValueError(f"{file}: expected the keys model_cfg and preprocess_cfg, got {got!r:.80}.")
    config: dict[str, Any] = whole["model_cfg"]
    side = check_architecture(config, str(file)).vision_cfg.image_size
    view = check_preprocessing(whole.get("preprocess_cfg", {}), str(file))
    if view.size not in (None, side, (side, side)):
        raise ValueError(f"{file}: expected preprocess_cfg.size {side}, the model's image_size, got {view.size}.")
    return config, Preprocessing(side, view.mean, view.std, view.interpolation, view.resize_mode)


def fill(model: Clip, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy `weights` into `model`: each name and shape must be the model's, and none may be missing.

    Raises:
        ValueError: Otherwise; `model` is then as it was.
    """
    own = model.state_dict()
    other = [
        f"{name}: expected {tuple(own[name].shape)}, got {tuple(weights[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    problems = [
        f"{len(names)} weights {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("are missing", sorted(own.keys() - weights.keys())),
            ("are unknown", sorted(weights.keys() - own.keys())),
            ("have another shape", other),
        )
        if names
    ]
    if problems:
        raise ValueError(f"{where} does not fit its configuration: {'; '.join(problems)}. Are both of one model?")
    model.load_state_dict(weights)


def take(model: Clip, folder: Path, towers: Iterable[Tower]) -> None:
    """Copy towers from the model in `folder`: their weights, and their running statistics.

    The logit scale and bias come along where both towers do.

    Raises:
        ValueError: If a tower there is not of the same architecture; `model` is then as it was.
    """
    other, _, _ = load(folder)
    wanted = set(towers)
    state, theirs = model.state_dict(), other.state_dict()
    scalars = {"logit_scale", "logit_bias"}

    def is_wanted(name: str) -> bool:
        if name in scalars:
            return {"image", "text"} <= wanted
        return ("image" if name.startswith("visual.") else "text") in wanted

    taken = {name: value for name, value in theirs.items() if is_wanted(name)}
    kept = {name: value for name, value in state.items() if not is_wanted(name)}
    fill(model, kept | taken, f"{folder} as init.towers {sorted(wanted)}")


def preprocessing_of(config: Mapping[str, Any]) -> Preprocessing:
    """What a model trained here expects: its own size, CLIP's mean and std."""
    return Preprocessing(image_size(config), OPENAI_MEAN, OPENAI_STD)


def logit_scale_and_bias(model: Clip) -> tuple[float, float]:
    """What the model multiplies its cosines with, and what it adds to them (SigLIP; 0 for CLIP)."""
    bias = model.logit_bias
    return model.logit_scale.exp().item(), 0.0 if bias is None else bias.item()


def parameters(model: Clip) -> tuple[int, int]:
    """Numbers of parameters of the image tower and of the text tower, projections with them, scale and bias without."""
    image = sum(p.numel() for p in model.visual.parameters())
    scalars = sum(p.numel() for p in (model.logit_scale, model.logit_bias) if p is not None)
    return image, sum(p.numel() for p in model.parameters()) - image - scalars


def compile_towers(model: Clip, wanted: bool) -> None:
    """torch.compile the image tower and the text transformer in place where that is wanted; names of weights stay."""
    if not wanted:
        return
    model.visual.compile()
    (model.transformer if hasattr(model, "transformer") else model.text).compile()


def describe(model: Clip, config: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the model's tags: parameter count in millions, width, patch tokens of the image tower."""
    rows, columns, _ = patch_grid(config)
    return {
        "kd.params_m": f"{parameters(model)[0] / 1e6:.3f}",
        "kd.width": str(config["embed_dim"]),
        "kd.tokens": str(rows * columns),
    }
