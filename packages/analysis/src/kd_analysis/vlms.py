"""Stock transformers VLMs, read before their projector (`patch_*`) and after it (`vlm_*`)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from kd_analysis.taps import OF_VLM, TOKENS
from kd_analysis.towers import cells
from kd_analysis.vision_cache import tower_digest

PROJECTOR = "multi_modal_projector"


@dataclass(frozen=True)
class VlmEncoder:
    """The vision side of a VLM: tower and projector, in eval mode, with its image processor and configuration."""

    model: Any
    processor: Any
    config: Any

    @property
    def look(self) -> str:
        """What the prepared image depends on."""
        return str(self.processor.to_json_string())

    def prepare(self) -> Callable[[Image.Image], Tensor]:
        def prepared(image: Image.Image) -> Tensor:
            pixels: Tensor = self.processor(image, return_tensors="pt")["pixel_values"][0]
            return pixels

        return prepared

    def to(self, device: str) -> None:
        self.model.to(device)

    def layers(self) -> list[str]:
        raise ValueError("Expected an open_clip encoder for a map of layers, got a VLM; take its encoder.")

    def read(self, images: Float[Tensor, "b 3 h w"], taps: Collection[str]) -> dict[str, Tensor]:
        """The features of prepared images: (b, d), or (b, cells, d) at the taps of tokens; all tokens at `TOKENS`.

        Raises:
            ValueError: For a tap that a VLM does not have.
        """
        if strange := sorted(set(taps) - {*OF_VLM, TOKENS}):
            raise ValueError(f"Expected a tap of {', '.join(OF_VLM)} for a VLM, got {', '.join(strange)}.")
        seen: dict[str, Tensor] = {}

        def take(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            seen["patch"], seen["vlm"] = given[0], out

        handle = getattr(self.model, PROJECTOR).register_forward_hook(take)
        try:
            self.model.get_image_features(pixel_values=images)
        finally:
            handle.remove()
        return _tapped(seen, taps)

    def at(self, tokens: Float[Tensor, "b t w"], taps: Collection[str]) -> dict[str, Tensor]:
        """The same from the tower's tokens, which the tower need not give again."""
        seen = {"patch": tokens.to(self.model.device)}
        if any(tap.startswith("vlm_") for tap in taps):
            seen["vlm"] = getattr(self.model, PROJECTOR)(seen["patch"])
        return _tapped(seen, taps)

    @property
    def cacheable(self) -> bool:
        """Whether its tokens may stand in a cache: those of a Llava or a FastVLM before their projector."""
        return self.config.model_type in ("llava", "fast_vlm")

    def about(self) -> dict[str, Any]:
        """What its tokens are a function of besides the image, as caches of visual tokens say it."""
        config, size = self.config, self.processor.crop_size or self.processor.size
        is_map = config.model_type == "fast_vlm"
        kind = config.vision_config.model_type.removesuffix("_model").removesuffix("_vision")
        return {
            "tower_sha256": tower_digest(self.model.vision_tower),
            "preprocessing": {key: value for key, value in self.processor.to_dict().items() if value is not None},
            "feature": {
                "kind": "map" if is_map else kind,
                "layer": -1 if is_map else config.vision_feature_layer,
                "first": 0 if is_map or config.vision_feature_select_strategy != "default" else 1,
                "size": size["height"],
            },
            **({} if self.model.device.type == "cpu" else {"device": self.model.device.type}),
        }


def _tapped(seen: Mapping[str, Tensor], taps: Collection[str]) -> dict[str, Tensor]:
    """Means and cells of the tokens before (`patch`) and after (`vlm`) the projector."""
    found = {}
    for tap in taps:
        stage, _, what = tap.partition("_")
        tokens = seen["patch" if tap == TOKENS else stage]
        found[tap] = tokens if tap == TOKENS else tokens.mean(dim=1) if what == "mean" else cells(tokens)
    return found


def load(folder: Path) -> VlmEncoder:
    """The VLM of a transformers folder; its language model is dropped.

    Raises:
        ValueError: If weights are missing, or it has no projector where Llava and FastVLM have theirs.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # Pillow's resampling, as open_clip and trainings have it; torchvision's is a level of 255 off here and there
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
    found: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **local
    )
    loaded, report = found
    if missing := sorted(report["missing_keys"]):  # transformers would go on with random ones
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}.")
    model = loaded.model
    if not hasattr(model, PROJECTOR):
        raise ValueError(f"{folder}: expected a VLM with a {PROJECTOR}, got {type(loaded).__name__}.")
    model.language_model = None
    return VlmEncoder(model.eval().requires_grad_(False), processor, loaded.config)
