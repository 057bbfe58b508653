"""timm's Swin as a native `SwinModel`. Its tokens are the last stage's, before the final norm.

timm halves the resolution at the start of a stage, transformers at the end of the one before; so a tower that stops
at an earlier stage is built with fewer stages, and its last one has no halving behind it.
"""

import re
from typing import Any, cast

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor
from transformers import SwinConfig, SwinModel

from kd_vlm.open_clip_config import TimmCfg
from kd_vlm.towers.common import Built, load, no_place, split_qkv, stage_count

_BLOCK_PARTS = {
    "attn.proj": "attention.o_proj",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_STEM = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "patch_embed.norm": "embeddings.norm",
}
_COMPUTED = ("attn_mask", "relative_position_index")


def build(vision: TimmCfg, trunk: SwinTransformer, weights: dict[str, Tensor], layer: int | str | None) -> Built:
    """The tower of `visual.trunk.*`, the prefix removed; `trunk` gives the shapes."""
    n_stages = stage_count(layer, len(trunk.layers))
    every, patches = cast("Any", trunk.layers), cast("Any", trunk.patch_embed)
    stages = list(every)[:n_stages]
    blocks = [stage.blocks[0] for stage in stages]
    (edge, _), (patch, _) = patches.img_size, patches.patch_size
    tower = SwinModel(
        SwinConfig(
            image_size=edge,
            patch_size=patch,
            embed_dim=trunk.embed_dim,
            depths=[len(stage.blocks) for stage in stages],
            num_heads=[block.attn.num_heads for block in blocks],
            window_size=max(block.window_size[0] for block in blocks),
            mlp_ratio=blocks[0].mlp.fc1.out_features / trunk.embed_dim,
            drop_path_rate=0.0,
            layer_norm_eps=blocks[0].norm1.eps,
        ),
        add_pooling_layer=False,
    )
    load(tower, {**_final_norm(tower), **_renamed(weights, n_stages, whole=n_stages == len(trunk.layers))})
    grid = edge // patch // 2 ** (n_stages - 1)
    return Built(tower, trunk.embed_dim * 2 ** (n_stages - 1), grid, n_class=0, layer=-1)


def _final_norm(tower: SwinModel) -> dict[str, Tensor]:
    """Fresh values for the norm after the tokens, which a tower with fewer stages has no trained one for."""
    return {f"layernorm.{key}": value for key, value in tower.layernorm.state_dict().items()}


def _renamed(weights: dict[str, Tensor], n_stages: int, *, whole: bool) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for key, value in weights.items():
        part, _, leaf = key.rpartition(".")
        if key.endswith(_COMPUTED) or key.startswith("head."):
            continue
        if part == "norm":
            out.update({f"layernorm.{leaf}": value} if whole else {})
        elif part in _STEM:
            out[f"{_STEM[part]}.{leaf}"] = value
        elif match := re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", key):
            if int(match[1]) < n_stages:
                out[f"encoder.layers.{int(match[1]) - 1}.downsample.{match[2]}"] = value
        elif match := re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.(.+)", key):
            if int(match[1]) < n_stages:
                out.update(_block(f"encoder.layers.{match[1]}.blocks.{match[2]}", match[3], value))
        else:
            raise no_place(key, "SwinModel")
    return out


def _block(prefix: str, name: str, value: Tensor) -> dict[str, Tensor]:
    part, _, leaf = name.rpartition(".")
    if part == "attn.qkv":
        return split_qkv(value, ("q_proj", "k_proj", "v_proj"), f"{prefix}.attention", leaf)
    if leaf == "relative_position_bias_table":
        return {f"{prefix}.attention.relative_position_bias.{leaf}": value}
    if part not in _BLOCK_PARTS:
        raise no_place(name, "SwinModel")
    return {f"{prefix}.{_BLOCK_PARTS[part]}.{leaf}": value}
