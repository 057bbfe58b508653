"""timm's SigLIP vision transformer as a `SiglipVisionModel`.

timm computes the exact GELU, SigLIP's original configuration in transformers the tanh approximation. The tower gets
the exact one, since open_clip's features are the reference.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel, TimmWrapperConfig, TimmWrapperModel

from kd_vlm.open_clip_config import TimmCfg
from kd_vlm.towers.common import Built, hidden_layer, load, no_place, split_qkv

_BLOCK_PARTS = {
    "attn.proj": "self_attn.out_proj",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_STEM = {
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
_AFTER = ("attn_pool.", "head.", "fc_norm.")  # pooling and head come after the tokens


def build(vision: TimmCfg, trunk: VisionTransformer, weights: dict[str, Tensor], layer: int | str | None) -> Built:
    """The tower of `visual.trunk.*`, the prefix removed; `trunk` gives the shapes.

    Raises:
        ValueError: If the trunk has a part that SigLIP has not (class token, register tokens, layer scale, norms of
            queries and keys, rotary positions).
    """
    _refuse_other_parts(vision.timm_model_name, trunk)
    block: Any = trunk.blocks[0]
    (edge, _), (patch, _) = trunk.patch_embed.img_size, trunk.patch_embed.patch_size
    tower = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=trunk.embed_dim,
            intermediate_size=block.mlp.fc1.out_features,
            num_hidden_layers=len(trunk.blocks),
            num_attention_heads=block.attn.num_heads,
            image_size=edge,
            patch_size=patch,
            hidden_act="gelu" if block.mlp.act.approximate == "none" else "gelu_pytorch_tanh",
            layer_norm_eps=block.norm1.eps,
            vision_use_head=False,
        )
    )
    load(tower, _renamed(weights))
    return Built(
        tower, trunk.embed_dim, edge // patch, n_class=0, layer=hidden_layer(layer, len(trunk.blocks), default=-2)
    )


def _refuse_other_parts(name: str, trunk: VisionTransformer) -> None:
    block: Any = trunk.blocks[0]
    others = {
        "a class or register token": trunk.num_prefix_tokens > 0,
        "a norm before the blocks": not isinstance(trunk.norm_pre, nn.Identity),
        "layer scale": not isinstance(block.ls1, nn.Identity),
        "norms of queries and keys": not isinstance(block.attn.q_norm, nn.Identity),
        "no learnt positions": trunk.pos_embed is None,
        "another activation": not isinstance(block.mlp.act, nn.GELU),
    }
    if found := [part for part, there in others.items() if there]:
        raise ValueError(
            f"{name}: no stock tower for a timm vision transformer with {', '.join(found)}. "
            "Take SigLIP, a convolutional or hybrid trunk, Swin, or open_clip's own vision transformer."
        )


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key.startswith(_AFTER):
            continue
        if key == "pos_embed":
            out["embeddings.position_embedding.weight"] = value[0]
        elif key in _STEM:
            out[_STEM[key]] = value
        elif match := re.fullmatch(r"blocks\.(\d+)\.(.+)", key):
            out.update(_block(f"encoder.layers.{match[1]}", match[2], value))
        else:
            raise no_place(key, "SiglipVisionModel")
    return out


def _block(prefix: str, name: str, value: Tensor) -> dict[str, Tensor]:
    part, _, leaf = name.rpartition(".")
    if part == "attn.qkv":
        return split_qkv(value, ("q_proj", "k_proj", "v_proj"), f"{prefix}.self_attn", leaf)
    if part not in _BLOCK_PARTS:
        raise no_place(name, "SiglipVisionModel")
    return {f"{prefix}.{_BLOCK_PARTS[part]}.{leaf}": value}


def timm_form(tower: SiglipVisionModel, layer: int) -> TimmWrapperModel:
    """The same tower as timm has it, ending with hidden state `layer`, without a norm behind it.

    For stock classes that read a tower's last state: SigLIP's own class puts its final norm there.
    """
    config = tower.config
    n_layers = layer if layer >= 0 else config.num_hidden_layers + 1 + layer
    shape = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": n_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "global_pool": "",
        "final_norm": False,
    }
    if config.hidden_act != "gelu":
        shape["act_layer"] = "gelu_tanh"
    settings = {"architecture": "vit_base_patch16_siglip_224", "do_pooling": False, "num_classes": 0}
    twin = TimmWrapperModel(TimmWrapperConfig.from_dict({**settings, "model_args": shape})).eval()
    load(twin, {f"timm_model.{key}": value for key, value in _timm_names(tower.state_dict(), n_layers).items()})
    return twin.requires_grad_(False)


def _timm_names(weights: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    out = {timm: weights[ours] for timm, ours in _STEM.items() if not timm.startswith("norm.")}
    out["pos_embed"] = weights["embeddings.position_embedding.weight"][None]
    for i in range(n_layers):
        ours, timm = f"encoder.layers.{i}", f"blocks.{i}"
        for leaf in ("weight", "bias"):
            out[f"{timm}.attn.qkv.{leaf}"] = torch.cat([weights[f"{ours}.self_attn.{p}_proj.{leaf}"] for p in "qkv"])
            out |= {f"{timm}.{a}.{leaf}": weights[f"{ours}.{b}.{leaf}"] for a, b in _BLOCK_PARTS.items()}
    return out
