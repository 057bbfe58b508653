"""open_clip encoders as feature extractors. The only module that imports torch and open_clip."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn

TAPS = ("pooled", "embed")
BATCH = 256


@dataclass(frozen=True)
class Encoder:
    """The vision side of a CLIP model.

    Attributes:
        visual: open_clip's vision tower, in eval mode.
        preprocess: Its own preprocessing, as open_clip recorded it.
    """

    visual: Any
    preprocess: PreprocessCfg


def load(folder: Path) -> Encoder:
    """The encoder of an open_clip `local-dir` folder, with its weights."""
    _refuse_downloads(folder)
    return _encoder(open_clip.create_model(f"local-dir:{folder}", device="cpu"))


def untrained(folder: Path, seed: int) -> Encoder:
    """The same architecture with fresh weights. Initialisation reads torch's global generator, so that is forked."""
    _refuse_downloads(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251
        return _encoder(open_clip.create_model(f"local-dir:{folder}", load_weights=False, device="cpu"))


def architecture(folder: Path) -> str:
    """What decides an untrained model: the architecture and the preprocessing, as canonical JSON."""
    return json.dumps(_config(folder), sort_keys=True)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "open_clip_config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected an open_clip model folder at {folder}, found no open_clip_config.json in it."
        )
    return dict(json.loads(path.read_text()))


def _refuse_downloads(folder: Path) -> None:
    """Stop at a config that would fetch something from a hub."""
    config = _config(folder).get("model_cfg", {})
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if vision.get("timm_model_pretrained") or "hf-hub:" in str(vision.get("timm_model_name")):
        raise ValueError(f"{folder}: its vision_cfg would download weights; expected a self-contained model.")
    if text.get("hf_model_name"):
        raise ValueError(f"{folder}: its text_cfg names the hub model {text['hf_model_name']!r}; expected none.")


def _encoder(model: Any) -> Encoder:
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # convolutions take half the time
    return Encoder(model.visual, PreprocessCfg(**model.visual.preprocess_cfg))


# ---------------------------------------------------------------- taps


def _vit(visual: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """The class token (or pooled tokens) after the last norm, and its projection."""
    projection, visual.proj = visual.proj, None
    try:
        out = visual(images)
    finally:
        visual.proj = projection
    pooled = out[0] if isinstance(out, tuple) else out
    return pooled, pooled if projection is None else pooled @ projection


def _timm(visual: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the trunk pools, and what its classifier and open_clip's head make of it."""
    features = visual.trunk.forward_features(images)
    if "pool" in visual.head._modules:  # attention pooling stands in the head, then
        pooled = visual.head.pool(features)
        return pooled, visual.head[1:](pooled)
    pooled = visual.trunk.forward_head(features, pre_logits=True)
    return pooled, visual.head(visual.trunk.forward_head(features))


TOWERS: Mapping[type[nn.Module], Callable[[Any, Tensor], tuple[Tensor, Tensor]]] = {
    VisionTransformer: _vit,
    TimmModel: _timm,
}


def features_at(visual: Any, images: Float[Tensor, "b 3 h w"], tap: str) -> Float[Tensor, "b d"]:
    """The features of preprocessed images at a tap.

    Args:
        visual: open_clip's vision tower.
        images: Preprocessed.
        tap: "pooled" (before the CLIP projection, not normalised) or "embed" (after it, L2-normalised).

    Raises:
        ValueError: For an unknown tap, or a tower whose pooling and projection cannot be told apart.
    """
    if tap not in TAPS:
        raise ValueError(f"Expected a tap of {', '.join(TAPS)}, got {tap!r}.")
    if type(visual) not in TOWERS:
        known = ", ".join(tower.__name__ for tower in TOWERS)
        raise ValueError(f"Expected a vision tower of {known}, got {type(visual).__name__}.")
    pooled, embedded = TOWERS[type(visual)](visual, images)
    return pooled if tap == "pooled" else nn.functional.normalize(embedded, dim=-1)


@torch.inference_mode()
def extract(
    encoders: Mapping[str, Encoder],
    images: Sequence[Image.Image],
    tap: str,
    on_batch: Callable[[int], None] = lambda done: None,
) -> dict[str, Float[np.ndarray, "n d"]]:
    """The float32 features of every encoder over the same images, in their order.

    Encoders that share a preprocessing share its result, so an image is resized once for all of them.

    Args:
        encoders: By name.
        images: RGB.
        tap: See `features_at`.
        on_batch: Told after each batch how many (encoder, image) pairs it did.
    """
    out: dict[str, list[np.ndarray]] = {name: [] for name in encoders}
    groups: dict[str, list[str]] = {}
    for name, encoder in encoders.items():
        groups.setdefault(repr(encoder.preprocess), []).append(name)
    for names in groups.values():
        transform = image_transform_v2(encoders[names[0]].preprocess, is_train=False)
        for start in range(0, len(images), BATCH):
            batch = torch.stack([transform(image) for image in images[start : start + BATCH]])
            batch = batch.contiguous(memory_format=torch.channels_last)
            for name in names:
                out[name].append(features_at(encoders[name].visual, batch, tap).float().numpy())
            on_batch(len(batch) * len(names))
    return {name: np.concatenate(parts) for name, parts in out.items()}
