"""Encoder + two-layer projector + language model = a stock transformers VLM with its processor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from kd_vlm.encoder import Encoder
from kd_vlm.templates import IMAGE, chat_template, end_token_id

StockVlm = LlavaForConditionalGeneration | FastVlmForConditionalGeneration


@dataclass(frozen=True)
class Vlm:
    """A stock model, its processor, and the two numbers that the training data needs."""

    model: StockVlm
    processor: LlavaProcessor
    image_id: int
    tokens_per_image: int

    @property
    def projector(self) -> nn.Module:
        return self.model.model.multi_modal_projector

    @property
    def text_config(self) -> Any:
        return self.model.config.text_config

    @property
    def tower(self) -> nn.Module:
        return self.model.model.vision_tower


def assemble(encoder: Encoder, lm_folder: Path, generator: torch.Generator) -> Vlm:
    """Put `encoder` before the language model in `lm_folder`, with a fresh two-layer GELU projector between.

    The token `<image>` is added to the vocabulary where it is missing; embeddings grow only if the table is full.

    Args:
        encoder: The vision tower; its weights are taken over unchanged.
        lm_folder: A causal language model of transformers with its tokenizer.
        generator: Draws the projector's weights (torch's default initialisation of a linear layer).

    Raises:
        ValueError: If the tokenizer has no `<|endoftext|>`.
    """
    tokenizer = AutoTokenizer.from_pretrained(lm_folder, local_files_only=True, padding_side="left")
    lm = AutoModelForCausalLM.from_pretrained(lm_folder, local_files_only=True, dtype=torch.float32)
    lm.config.name_or_path = ""  # where it was loaded from would make equal models differ
    end_id = end_token_id(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE]})
    image_id = int(tokenizer.get_vocab()[IMAGE])
    _make_room(lm, image_id)
    model = _stock_model(encoder, lm, image_id)
    for layer in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
        nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
        nn.init.uniform_(layer.bias, -(layer.in_features**-0.5), layer.in_features**-0.5, generator=generator)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.convert_ids_to_tokens(end_id)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=end_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=64
    )
    return Vlm(model.eval(), _processor(encoder, tokenizer), image_id, encoder.n_tokens)


def _make_room(lm: Any, image_id: int) -> None:
    """Grow the embeddings by a row for `image_id` where needed; it starts as the mean of the others."""
    table = lm.get_input_embeddings()
    n_rows = table.num_embeddings
    if image_id < n_rows:
        return
    lm.resize_token_embeddings(image_id + 1, mean_resizing=False)
    with torch.no_grad():
        for layer in (lm.get_input_embeddings(), lm.get_output_embeddings()):
            layer.weight[n_rows:] = layer.weight[:n_rows].mean(dim=0)


def _stock_model(encoder: Encoder, lm: Any, image_id: int) -> StockVlm:
    shared = {
        "vision_config": encoder.tower.config,
        "text_config": lm.config,
        "image_token_index": image_id,
        "image_seq_length": encoder.n_tokens,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": lm.config.tie_word_embeddings,
    }
    model: StockVlm
    if encoder.kind == "vit":
        config = LlavaConfig(**shared, vision_feature_layer=-2, vision_feature_select_strategy="default")
        model = LlavaForConditionalGeneration(config)
    else:
        model = FastVlmForConditionalGeneration(FastVlmConfig(**shared))
    model.model.vision_tower.load_state_dict(encoder.tower.state_dict())
    model.model.language_model.load_state_dict(lm.model.state_dict())
    model.lm_head.load_state_dict(lm.lm_head.state_dict())
    model.tie_weights()
    model.model.vision_tower.requires_grad_(False)
    return model


def _processor(encoder: Encoder, tokenizer: Any) -> LlavaProcessor:
    """The processor counts visual tokens as (edge // patch_size) ** 2, plus a class token that Llava then drops."""
    is_vit = encoder.kind == "vit"
    return LlavaProcessor(
        image_processor=encoder.processor,
        tokenizer=tokenizer,
        patch_size=encoder.size // encoder.grid,
        vision_feature_select_strategy="default" if is_vit else "full",
        num_additional_image_tokens=int(is_vit),
        chat_template=chat_template(),
    )


def standardise_input(vlm: Vlm, features: np.ndarray) -> None:
    """Fold (x - mean) / deviation of the visual tokens into the projector's first layer, channel by channel.

    Encoders differ in the scale of their features by orders of magnitude, and one learning rate must do for all of
    them. The model stays stock: only its initial weights change. Nearly constant channels are not blown up.

    Args:
        vlm: Just assembled.
        features: Visual tokens (n, p, w) of the training pictures.
    """
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
