"""From an open_clip `local-dir` folder to a stock transformers vision tower with equal features.

Nothing else of the folder is used, and nothing in it can run code or name a model elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from transformers import CLIPImageProcessorPil

from kd_vlm.open_clip_config import WEIGHTS_FILE, EncoderConfig, TimmCfg, existing, read_config
from kd_vlm.preprocess import image_processor
from kd_vlm.reading import weights_errors
from kd_vlm.towers import clip, siglip, swin, timm_map
from kd_vlm.towers.common import Built, timm_shape

Kind = Literal["clip", "siglip", "swin", "map"]


@dataclass(frozen=True)
class Encoder:
    """A frozen vision tower in eval mode, and which of its tokens are used.

    Attributes:
        tower: Stock transformers model; maps pixels (b, 3, size, size) to features.
        kind: `clip`, `siglip` and `swin` go into Llava, `map` into FastVLM.
        processor: Preprocessing equal to open_clip's.
        width: Channels of one visual token.
        grid: Patches along one edge.
        size: Edge of the input in pixels.
        layer: Index into the tower's hidden states; -1 for maps.
        first: The tokens before this one are dropped: a class token, or under a quirk a patch.
        n_class: Class tokens that the tower gives: 1 or 0.
    """

    tower: Any
    kind: Kind
    processor: CLIPImageProcessorPil
    width: int
    grid: int
    size: int
    layer: int = -1
    first: int = 0
    n_class: int = 0

    @property
    def n_tokens(self) -> int:
        """Visual tokens of one picture."""
        return self.grid * self.grid + self.n_class - self.first


def load_encoder(
    folder: Path,
    *,
    layer: int | str | None = None,
    class_token: str | None = None,
    grid: int | None = None,
    quirk: str | None = None,
) -> Encoder:
    """The vision tower of the open_clip folder `folder`.

    Args:
        folder: Holds `open_clip_config.json` and `open_clip_model.safetensors`.
        layer: See `choices.Feature`, as all that follow.
        class_token: keep or drop; only where there is one.
        grid: Tokens along an edge that are expected.
        quirk: tinyllava-728, on SigLIP only.

    Raises:
        FileNotFoundError: If a file of the folder is missing.
        ValueError: If the configuration names something that has no equal stock tower, the weights do not fit, or
            the tower has no such feature.
    """
    config = read_config(folder)
    with weights_errors(folder / WEIGHTS_FILE):
        weights = load_file(existing(folder / WEIGHTS_FILE))
    visual = {key.removeprefix("visual."): value for key, value in weights.items() if key.startswith("visual.")}
    kind, built = _build(config, visual, layer)
    if grid not in (None, built.grid):
        raise ValueError(
            f"feature.grid: expected {grid} x {grid} tokens, layer {layer or 'by default'} of this encoder gives "
            f"{built.grid} x {built.grid}."
        )
    first = _first_token(kind, built, class_token, quirk)
    return Encoder(
        tower=built.tower.eval().requires_grad_(False),
        kind=kind,
        processor=image_processor(config),
        width=built.width,
        grid=built.grid,
        size=config.size,
        layer=built.layer,
        first=first,
        n_class=built.n_class,
    )


def visual_tokens(encoder: Encoder, pixels: Tensor) -> Tensor:
    """The tokens that the stock model hands to its projector: pixels (b, 3, s, s) to (b, t, w)."""
    with torch.no_grad():
        if encoder.kind == "map":
            return encoder.tower(pixels).last_hidden_state.flatten(2).permute(0, 2, 1)
        return encoder.tower(pixels, output_hidden_states=True).hidden_states[encoder.layer][:, encoder.first :]


def _build(config: EncoderConfig, visual: dict[str, Tensor], layer: int | str | None) -> tuple[Kind, Built]:
    vision = config.vision
    if not isinstance(vision, TimmCfg):
        return "clip", clip.build(config, vision, visual, layer)
    shape = timm_shape(vision.timm_model_name)
    trunk = {key.removeprefix("trunk."): value for key, value in visual.items() if key.startswith("trunk.")}
    if isinstance(shape, VisionTransformer):
        return "siglip", siglip.build(vision, shape, trunk, layer)
    if isinstance(shape, SwinTransformer):
        return "swin", swin.build(vision, shape, trunk, layer)
    return "map", timm_map.build(vision, trunk, layer)


def _first_token(kind: Kind, built: Built, class_token: str | None, quirk: str | None) -> int:
    if class_token is not None and not built.n_class:
        raise ValueError(f"feature.class_token: a {kind} tower has no class token to {class_token}; leave it out.")
    if quirk is None:
        return 0 if class_token == "keep" else built.n_class  # noqa: S105
    if quirk != "tinyllava-728" or kind != "siglip":
        raise ValueError(f"feature.quirk: {quirk} is for SigLIP towers; this is a {kind} tower.")
    return 1
