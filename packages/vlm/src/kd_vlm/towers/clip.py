"""open_clip's own vision transformer (CLIP, DFN, CLIP-KD's ViT-T) as a `CLIPVisionModel`."""

import re

from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from kd_vlm.open_clip_config import EncoderConfig, VitCfg
from kd_vlm.towers.common import Built, hidden_layer, load, no_place, split_qkv

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


def build(config: EncoderConfig, vision: VitCfg, weights: dict[str, Tensor], layer: int | str | None) -> Built:
    """The tower of `visual.*`, the prefix removed. The GELU is the one that the configuration names."""
    tower = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=vision.width,
            intermediate_size=int(vision.width * vision.mlp_ratio),
            projection_dim=config.embed_dim,
            num_hidden_layers=vision.layers,
            num_attention_heads=vision.width // vision.head_width,
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            hidden_act="quick_gelu" if config.quick_gelu else "gelu",
            layer_norm_eps=1e-5,
        )
    )
    load(tower, _renamed(weights))
    index = hidden_layer(layer, vision.layers, default=-2)
    return Built(tower, vision.width, vision.image_size // vision.patch_size, n_class=1, layer=index)


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's names to transformers'; the projection into the shared space is left out."""
    out: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key == "proj":
            continue
        if key in _STEM:
            out[_STEM[key]] = value
        elif match := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", key):
            out.update(_block(f"encoder.layers.{match[1]}", match[2], value))
        else:
            raise no_place(key, "CLIPVisionModel")
    return out


def _block(prefix: str, name: str, value: Tensor) -> dict[str, Tensor]:
    part, _, leaf = name.rpartition(".")
    if leaf.startswith("in_proj_"):
        return split_qkv(value, ("q_proj", "k_proj", "v_proj"), f"{prefix}.self_attn", leaf.removeprefix("in_proj_"))
    if part not in _BLOCK_PARTS:
        raise no_place(name, "CLIPVisionModel")
    return {f"{prefix}.{_BLOCK_PARTS[part]}.{leaf}": value}
