"""Image towers opened up: the embedding as the model gives it, and beside it the patch tokens that a VLM reads."""

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_distill.layers import PatchLayer

Tokens = Float[Tensor, "b p w"]


def image_features(
    model: Any,
    images: Float[Tensor, "b 3 h w"],
    *,
    patches: PatchLayer | None = None,
    keep: Int[Tensor, "b k"] | None = None,
) -> tuple[Float[Tensor, "b d"], Tokens | None]:
    """Image embeddings, and patch tokens where asked for.

    Args:
        model: An open_clip CLIP or CustomTextCLIP.
        images: Normalised as the model wants them.
        patches: Return the patch tokens too, row by row from the upper left corner, without class or other prefix
            tokens: those of this layer, see layers.py. A vision transformer's last norm is open_clip's `ln_post` or
            timm's `norm`.
        keep: Indices of the patches that the tower sees, in [0, p); the others are dropped after position embeddings
            are added and before the first block. Class tokens stay. Vision transformers only. With `patches`, the
            tokens are those of the kept patches, in the order of `keep`.

    Returns:
        Embeddings, not normalised, equal to `model.encode_image(images)` where `keep` is None; and the tokens or None.

    Raises:
        ValueError: If the tower cannot do what is asked for, or `keep` has the wrong shape.
    """
    if patches is None and keep is None:
        return model.encode_image(images), None
    embedding, tokens, _ = _open(model.visual, images, keep, patches or "last")
    return embedding, tokens if patches else None


def patch_grid(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """(rows, columns, width) of the patch tokens of the model with this open_clip configuration.

    The tower is built and run on torch's meta device, so this takes no memory and holds for any tower.
    """
    return _grid(json.dumps([config["embed_dim"], config["vision_cfg"]], sort_keys=True))


@functools.lru_cache
def _grid(canonical: str) -> tuple[int, int, int]:
    from open_clip.model import _build_vision_tower

    embed_dim, vision = json.loads(canonical)
    with torch.device("meta"):
        visual = _build_vision_tower(embed_dim, vision).eval()
        _, tokens, (rows, columns) = _open(
            visual, torch.empty(1, 3, *_sides(vision.get("image_size", 224))), None, "last"
        )
    return rows, columns, tokens.shape[2]


def _sides(size: int | list[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _open(
    visual: Any, images: Tensor, keep: Tensor | None, layer: PatchLayer
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Embeddings, tokens and the whole grid (rows, columns), by the kind of the tower."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer):
        return _open_vit(visual, images, keep, layer)
    if isinstance(visual, TimmModel):
        return _open_timm(visual, images, keep, layer)
    if isinstance(visual, ModifiedResNet):
        return _open_resnet(visual, images, keep)
    raise ValueError(f"Expected an open_clip VisionTransformer, ModifiedResNet or timm tower, got {type(visual)}.")


@contextmanager
def _input_of_last(blocks: Any) -> Iterator[list[Tensor]]:
    """What the last of `blocks` is given while inside: one tensor (b, tokens, w) a call; nothing without blocks."""
    seen: list[Tensor] = []
    if blocks is None:
        yield seen
        return
    hook = blocks[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()


def _open_vit(
    visual: Any, images: Tensor, keep: Tensor | None, layer: PatchLayer
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    if visual.attn_pool is not None:
        raise ValueError("A vision tower with attentional pooling has no patch tokens after its last norm.")
    if visual.training and not isinstance(visual.patch_dropout, torch.nn.Identity):
        raise ValueError("vision_cfg.patch_dropout drops patches by itself; set it to 0 to read or choose patches.")
    x = _only(visual._embeds(images), keep, 1)
    with _input_of_last(visual.transformer.resblocks) as before_last:
        x = visual.transformer(x)
    pooled, _ = visual._pool(x)
    embedding = pooled if visual.proj is None else pooled @ visual.proj
    tokens = before_last[0] if layer == "penultimate" else visual.ln_post(x)
    return embedding, tokens[:, 1:], tuple(visual.grid_size)


def _open_timm(
    visual: Any, images: Tensor, keep: Tensor | None, layer: PatchLayer
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    from timm.models.vision_transformer import VisionTransformer

    trunk = visual.trunk
    with _input_of_last(getattr(trunk, "blocks", None)) as before_last:
        if keep is None:
            features = trunk.forward_features(images)
        elif isinstance(trunk, VisionTransformer):
            x = trunk._pos_embed(trunk.patch_embed(images))
            features = trunk.norm(trunk.blocks(trunk.norm_pre(_only(x, keep, trunk.num_prefix_tokens))))
        else:
            kind = type(trunk).__name__
            raise ValueError(f"Patches can be dropped in vision transformers only; the tower is a {kind}.")
    embedding = visual.head(trunk.forward_head(features))
    if features.ndim == 3:
        tokens = before_last[0] if layer == "penultimate" else features
        return embedding, tokens[:, trunk.num_prefix_tokens :], tuple(trunk.patch_embed.grid_size)
    if getattr(trunk, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    return embedding, features.flatten(2).transpose(1, 2), tuple(features.shape[2:])


def _open_resnet(visual: Any, images: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor, tuple[int, int]]:
    if keep is not None:
        raise ValueError("Patches can be dropped in vision transformers only; the tower is a ResNet.")
    x = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    return visual.attnpool(x), x.flatten(2).transpose(1, 2), tuple(x.shape[2:])


def _only(x: Tokens, keep: Tensor | None, prefix: int) -> Tokens:
    """The first `prefix` tokens and the patches that `keep` names."""
    if keep is None:
        return x
    b, p = len(x), x.shape[1] - prefix
    if keep.ndim != 2 or len(keep) != b or not 1 <= keep.shape[1] <= p:
        raise ValueError(f"keep: expected the shape ({b}, k) with k from 1 to {p}, got {tuple(keep.shape)}.")
    patches = x[:, prefix:].gather(1, keep[:, :, None].expand(-1, -1, x.shape[2]))
    return torch.cat([x[:, :prefix], patches], dim=1)
