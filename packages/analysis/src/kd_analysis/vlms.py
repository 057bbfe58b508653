"""Stock transformers VLMs, read before their projector (`patch_*`) and after it (`vlm_*`)."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from kd_analysis.taps import OF_VLM
from kd_analysis.towers import cells

PROJECTOR = "multi_modal_projector"


@dataclass(frozen=True)
class VlmEncoder:
    """The vision side of a VLM: tower and projector, in eval mode, with its image processor."""

    model: Any
    processor: Any

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
        """The features of prepared images: (b, d), or (b, cells, d) at the taps of tokens.

        Raises:
            ValueError: For a tap that a VLM does not have.
        """
        if strange := sorted(set(taps) - set(OF_VLM)):
            raise ValueError(f"Expected a tap of {', '.join(OF_VLM)} for a VLM, got {', '.join(strange)}.")
        seen: dict[str, Tensor] = {}

        def take(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
            seen["patch"], seen["vlm"] = given[0], out

        handle = getattr(self.model, PROJECTOR).register_forward_hook(take)
        try:
            self.model.get_image_features(pixel_values=images)
        finally:
            handle.remove()
        found = {}
        for tap in taps:
            stage, _, what = tap.partition("_")
            found[tap] = seen[stage].mean(dim=1) if what == "mean" else cells(seen[stage])
        return found


def load(folder: Path) -> VlmEncoder:
    """The VLM of a transformers folder; its language model is dropped.

    Raises:
        ValueError: If it has no projector where Llava and FastVLM have theirs.
    """
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    processor = AutoProcessor.from_pretrained(folder, **local).image_processor
    loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **local)
    model = loaded.model
    if not hasattr(model, PROJECTOR):
        raise ValueError(f"{folder}: expected a VLM with a {PROJECTOR}, got {type(loaded).__name__}.")
    model.language_model = None
    return VlmEncoder(model.eval().requires_grad_(False), processor)
