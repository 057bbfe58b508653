"""A stock VLM folder, back in memory as what it was when it was trained."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    CLIPImageProcessorPil,
    LlavaImageProcessor,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from kd_vlm.assembly import Vlm
from kd_vlm.language_model import LOCAL

WITH_PIL: dict[type, Any] = {  # what trains, for what transformers loads: torchvision's resize is a grey level off
    CLIPImageProcessor: CLIPImageProcessorPil,
    LlavaImageProcessor: LlavaImageProcessorPil,  # pads
}


def load_vlm(folder: Path, device: str = "cpu") -> Vlm:
    """The stock checkpoint in `folder`, in float32 and eval mode, seeing pictures as training did (PIL's resize).

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a weight is missing (transformers itself would go on with a random one), or there is no such
            device.
    """
    _check_device(device)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"Expected a stock VLM (config.json, safetensors, processor) in {folder}, found none.")
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, **LOCAL, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{folder}: {len(missing)} weights are missing, such as {missing[0]}; export it again.")
    processor: Any = AutoProcessor.from_pretrained(folder, **LOCAL)
    if (with_pil := WITH_PIL.get(type(processor.image_processor))) is not None:
        processor.image_processor = with_pil.from_dict(processor.image_processor.to_dict())
    blank = processor(text=processor.image_token, images=Image.new("RGB", (64, 64)), return_tensors="pt")
    image_id = int(model.config.image_token_id)
    n_tokens = int((blank["input_ids"] == image_id).sum())
    return Vlm(model.eval().to(device), processor, image_id, n_tokens, _connector(model))


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # of no such name, no such device, a torch that is built without
        said = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"Expected a device that is here, such as cpu, cuda or mps, got {name!r} ({said:.120}). Take cpu."
        ) from None


def tower_tokens(model: Any, pixels: Tensor) -> Tensor:
    """What a stock VLM's connector reads for pixels as its own processor gives them: (n, t, w)."""
    config, tower = model.config, model.model.vision_tower
    with torch.no_grad():
        if config.model_type == "fast_vlm":
            return tower(pixels).last_hidden_state.flatten(2).permute(0, 2, 1)
        if config.model_type == "perception_lm":
            return tower(pixels.flatten(0, 1)).last_hidden_state
        states = tower(pixels, output_hidden_states=True).hidden_states[config.vision_feature_layer]
    return states[:, 1:] if config.vision_feature_select_strategy == "default" else states


def _connector(model: Any) -> str:
    config = model.config
    if config.model_type in ("aya_vision", "perception_lm"):
        return "pixel_shuffle" if config.model_type == "aya_vision" else "avg_pool"
    if config.projector_hidden_act != "linear":
        return "mlp2x_gelu"
    first = model.model.multi_modal_projector.linear_1.weight
    square = first.shape[0] == first.shape[1]
    return "identity" if square and torch.equal(first, torch.eye(len(first), device=first.device)) else "linear"
