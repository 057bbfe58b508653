"""From an open_clip `local-dir` folder to a stock transformers vision tower with equal features.

A native open_clip ViT becomes a `CLIPVisionModel` (tokens: the penultimate layer without the class token), a timm
convolutional trunk a `TimmWrapperModel` (tokens: the last feature map). Nothing else of the folder is used, and
nothing in it can run code or name a model elsewhere.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, TimmWrapperConfig, TimmWrapperModel

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


Tower = TypeVar("Tower", bound=nn.Module)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VitCfg(_Strict):
    """`vision_cfg` of open_clip's own vision transformer; what has no equal in `CLIPVisionModel` is refused."""

    image_size: int = Field(224, gt=0)
    layers: int = Field(12, gt=1)
    width: int = Field(768, gt=0)
    head_width: int = Field(64, gt=0)
    mlp_ratio: float = Field(4.0, gt=0)
    patch_size: int = Field(16, gt=0)
    patch_dropout: float = Field(0.0, ge=0, lt=1, description="Acts in training only.")
    pool_type: Literal["tok", "avg", "none"] = Field("tok", description="After the layer that is used here.")
    output_tokens: bool = False


class TimmCfg(_Strict):
    """`vision_cfg` of a timm trunk. Pooling and projection come after the map that is used here."""

    timm_model_name: str = Field(pattern=r"^[a-z0-9_]+$", description="A name of timm's registry, not of a hub.")
    timm_model_pretrained: Literal[False] = False
    timm_pool: str = "avg"
    timm_proj: str = "linear"
    timm_proj_bias: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None
    image_size: int = Field(224, gt=0)


class PreprocessCfg(_Strict):
    """open_clip's `preprocess_cfg`: how a picture becomes the encoder's input."""

    size: int | tuple[int, int] | None = None
    mode: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    fill_color: int = 0


@dataclass(frozen=True)
class EncoderConfig:
    vision: VitCfg | TimmCfg
    preprocess: PreprocessCfg
    embed_dim: int
    quick_gelu: bool

    @property
    def size(self) -> int:
        """Edge of the input picture in pixels."""
        size = self.preprocess.size or self.vision.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if not height == width == self.vision.image_size:
            raise ValueError(
                f"Expected one square input size, got vision_cfg.image_size={self.vision.image_size} and "
                f"preprocess_cfg.size={self.preprocess.size}."
            )
        return height


@dataclass(frozen=True)
class Encoder:
    """A frozen vision tower in eval mode.

    Attributes:
        tower: Stock transformers model; maps pixels (b, 3, size, size) to features.
        kind: `vit` goes into Llava, `map` into FastVLM.
        processor: Preprocessing equal to open_clip's.
        width: Channels of one visual token.
        grid: Visual tokens along one edge; a picture gives grid * grid tokens.
        size: Edge of the input in pixels.
    """

    tower: CLIPVisionModel | TimmWrapperModel
    kind: Literal["vit", "map"]
    processor: CLIPImageProcessorPil
    width: int
    grid: int
    size: int

    @property
    def n_tokens(self) -> int:
        return self.grid * self.grid


def load_encoder(folder: Path) -> Encoder:
    """The vision tower of the open_clip folder `folder`.

    Raises:
        FileNotFoundError: If a file of the folder is missing.
        ValueError: If the configuration names something that has no equal stock tower, or the weights do not fit.
    """
    config = read_config(folder)
    weights = load_file(_existing(folder / WEIGHTS_FILE))
    visual = {key.removeprefix("visual."): value for key, value in weights.items() if key.startswith("visual.")}
    if isinstance(config.vision, VitCfg):
        vit = _vit_tower(config.vision, config.embed_dim, config.quick_gelu, visual)
        grid = config.vision.image_size // config.vision.patch_size
        return Encoder(_frozen(vit), "vit", image_processor(config), config.vision.width, grid, config.size)
    trunk, width, grid = _timm_tower(config.vision, visual)
    return Encoder(_frozen(trunk), "map", image_processor(config), width, grid, config.size)


def read_config(folder: Path) -> EncoderConfig:
    """`open_clip_config.json` of `folder`, checked.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it holds an unknown key, or names a model or tokenizer elsewhere.
    """
    path = _existing(folder / CONFIG_FILE)
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        model, preprocess = whole["model_cfg"], whole["preprocess_cfg"]
        vision, embed_dim = dict(model["vision_cfg"]), int(model["embed_dim"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not an open_clip configuration: {error!r}.") from None
    elsewhere = [key for key in model.get("text_cfg", {}) if key.startswith("hf_")]
    if elsewhere or set(model) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale"}:
        extra = elsewhere or sorted(set(model) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"})
        raise ValueError(f"{path}: model_cfg must describe the whole model by itself; found {', '.join(extra)}.")
    schema: type[VitCfg | TimmCfg] = TimmCfg if "timm_model_name" in vision else VitCfg
    try:
        return EncoderConfig(
            vision=schema.model_validate(vision),
            preprocess=PreprocessCfg.model_validate(preprocess),
            embed_dim=embed_dim,
            quick_gelu=bool(model.get("quick_gelu", False)),
        )
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']} (got {p['input']!r})" for p in error.errors())
        raise ValueError(f"{path}: no stock tower for this configuration: {problems}.") from None


def image_processor(config: EncoderConfig) -> CLIPImageProcessorPil:
    """A stock image processor bit-equal to open_clip's evaluation transform."""
    size, squash = config.size, config.preprocess.resize_mode == "squash"
    return CLIPImageProcessorPil(
        size={"height": size, "width": size} if squash else {"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_center_crop=not squash,
        resample={"bilinear": 2, "bicubic": 3}[config.preprocess.interpolation],
        image_mean=list(config.preprocess.mean),
        image_std=list(config.preprocess.std),
        do_convert_rgb=True,
    )


def visual_tokens(encoder: Encoder, pixels: Tensor) -> Tensor:
    """The tokens that Llava (or FastVLM) hands to its projector: pixels (b, 3, s, s) to (b, t, w)."""
    with torch.no_grad():
        if encoder.kind == "vit":
            return encoder.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        return encoder.tower(pixels).last_hidden_state.flatten(2).permute(0, 2, 1)


def _vit_tower(vision: VitCfg, embed_dim: int, quick_gelu: bool, weights: dict[str, Tensor]) -> CLIPVisionModel:
    config = CLIPVisionConfig(
        hidden_size=vision.width,
        intermediate_size=int(vision.width * vision.mlp_ratio),
        projection_dim=embed_dim,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.width // vision.head_width,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        hidden_act="quick_gelu" if quick_gelu else "gelu",
        layer_norm_eps=1e-5,
    )
    tower = CLIPVisionModel(config)
    _load(tower, _vit_weights(weights))
    return tower


_BLOCK_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_STEM = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # the name is misspelt in transformers
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}


def _vit_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names to transformers'; the projection into the shared space is left out."""
    out: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key == "proj":
            continue
        if key in _STEM:
            out[_STEM[key]] = value
        elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)\.?(in_proj_)?(weight|bias)", key):
            out.update(_block_weights(f"encoder.layers.{match[1]}", key.split(".", 3)[3], value))
        else:
            raise ValueError(f"{WEIGHTS_FILE}: {key} has no place in a CLIPVisionModel.")
    return out


def _block_weights(prefix: str, name: str, value: Tensor) -> dict[str, Tensor]:
    part, _, leaf = name.rpartition(".")
    if leaf.startswith("in_proj_"):
        suffix = leaf.removeprefix("in_proj_")
        return {f"{prefix}.self_attn.{p}_proj.{suffix}": v for p, v in zip("qkv", value.chunk(3), strict=True)}
    if part not in _BLOCK_PARTS:
        raise ValueError(f"{WEIGHTS_FILE}: {name} has no place in a CLIPVisionModel.")
    return {f"{prefix}.{_BLOCK_PARTS[part]}.{leaf}": value}


def _timm_tower(vision: TimmCfg, weights: dict[str, Tensor]) -> tuple[TimmWrapperModel, int, int]:
    """The trunk, the channels of its last map and the map's edge."""
    config = TimmWrapperConfig.from_dict(
        {"architecture": vision.timm_model_name, "do_pooling": False, "num_classes": 0, "hidden_size": 1}
    )
    tower = TimmWrapperModel(config).eval()
    classifier = tower.timm_model.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    trunk = {k.removeprefix("trunk."): v for k, v in weights.items() if k.startswith("trunk.")}
    _load(
        tower, {f"timm_model.{k}": v for k, v in trunk.items() if not k.startswith(tuple(f"{c}." for c in classifier))}
    )
    with torch.no_grad():
        features = tower(torch.zeros(1, 3, vision.image_size, vision.image_size)).last_hidden_state
    channels = tower.timm_model.num_features
    if features.ndim != 4 or features.shape[2] != features.shape[3]:
        raise ValueError(
            f"{vision.timm_model_name}: expected a square feature map (b, channels, h, w), got {tuple(features.shape)} "
            f"({channels} features). Take a convolutional or hybrid trunk, or a native open_clip ViT."
        )
    config.hidden_size = features.shape[1]
    return tower, features.shape[1], features.shape[2]


def _frozen(tower: Tower) -> Tower:
    return tower.eval().requires_grad_(False)


def _load(tower: nn.Module, weights: dict[str, Tensor]) -> None:
    try:
        tower.load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{WEIGHTS_FILE} does not fit {CONFIG_FILE}: {error}") from None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"Expected an open_clip folder with {path.name} at {path.parent}, found none.")
    return path
