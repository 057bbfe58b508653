"""Encoder + connector + language model = a stock transformers VLM with its processor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import Parameter
from transformers import GenerationConfig, LlavaProcessor

from kd_vlm.connectors import check_connector, init_connector, tokens_after, trainable_parameters
from kd_vlm.encoder import Encoder
from kd_vlm.language_model import check_taken_over, load_language_model
from kd_vlm.stock import StockVlm, stock_model, stock_processor
from kd_vlm.templates import chat_template


@dataclass(frozen=True)
class Vlm:
    """A stock model, its processor, and the two numbers that the training data needs."""

    model: StockVlm
    processor: LlavaProcessor
    image_id: int
    tokens_per_image: int
    connector: str = "mlp2x_gelu"

    @property
    def projector(self) -> nn.Module:
        return self.model.model.multi_modal_projector

    def connector_parameters(self) -> dict[str, Parameter]:
        """What is trained of the connector, by name in the model; of some connectors, a layer is a fixed identity."""
        named = trainable_parameters(self.projector, self.connector)
        return {f"model.multi_modal_projector.{name}": p for name, p in named.items()}

    @property
    def text_config(self) -> Any:
        return self.model.config.text_config

    @property
    def tower(self) -> nn.Module:
        return self.model.model.vision_tower


def assemble(
    encoder: Encoder,
    lm_folder: Path,
    generator: torch.Generator,
    *,
    connector: str = "mlp2x_gelu",
    factor: int | None = None,
    template: str = "qwen2_base",
) -> Vlm:
    """Put `encoder` before the language model in `lm_folder`, with a fresh connector between.

    The token `<image>` is added to the vocabulary where it is missing; embeddings grow only if the table is full.

    Args:
        encoder: The vision tower; its weights are taken over unchanged, and so is its choice of tokens.
        lm_folder: A causal language model of transformers with its tokenizer.
        generator: Draws the connector's weights (torch's default initialisation of a linear layer).
        connector: See `connectors`.
        factor: Tokens along an edge that become one, for connectors that reduce tokens.
        template: How conversations are written: it gives the token that ends an answer, and the chat template.

    Raises:
        ValueError: If the template cannot be written with the tokenizer, or no stock class holds this combination.
    """
    lm = load_language_model(lm_folder, template)
    check_connector(encoder, lm.model.config.hidden_size, connector, factor)
    model = stock_model(encoder, lm, connector, factor)
    check_taken_over(lm.model, model)
    init_connector(model.model.multi_modal_projector, connector, generator)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=lm.end_id, pad_token_id=lm.tokenizer.pad_token_id, max_new_tokens=64
    )
    processor = stock_processor(encoder, lm.tokenizer, connector, factor, chat_template(template, lm.tokenizer))
    return Vlm(model.eval(), processor, lm.image_id, tokens_after(encoder, factor), connector)


def standardise_input(vlm: Vlm, features: np.ndarray) -> None:
    """Fold (x - mean) / deviation of the visual tokens into the projector's first layer, channel by channel.

    Encoders differ in the scale of their features by orders of magnitude, and one learning rate must do for all of
    them. The model stays stock: only its initial weights change. Nearly constant channels are not blown up.

    A `pixel_shuffle` connector begins with a LayerNorm, which does it already.

    Args:
        vlm: Just assembled.
        features: Visual tokens (n, p, w) of the training pictures.

    Raises:
        ValueError: If the connector has nothing to fold it into.
    """
    if vlm.connector == "pixel_shuffle":
        return
    if vlm.connector == "identity":
        raise ValueError("The connector identity has no weights that could standardise; set standardise: false.")
    mean, deviation = features.mean(axis=(0, 1)), features.std(axis=(0, 1))
    scale = torch.from_numpy(1 / np.sqrt(deviation**2 + 0.01 * (deviation**2).mean() + 1e-12))
    layer: Any = vlm.projector.linear_1
    with torch.no_grad():
        layer.weight.mul_(scale)
        layer.bias.sub_(layer.weight @ torch.from_numpy(mean))


def save_vlm(vlm: Vlm, folder: Path) -> None:
    """Write the stock checkpoint to `folder`: safetensors, configuration, processor, tokenizer, chat template."""
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
