"""The stock transformers class for a tower and a connector, filled with their weights, and its processor.

| tower | connector | class |
|---|---|---|
| CLIP, SigLIP, Swin | mlp2x_gelu, linear, identity | `LlavaForConditionalGeneration` |
| timm map | mlp2x_gelu, linear, identity | `FastVlmForConditionalGeneration` |
| CLIP, SigLIP, Swin | pixel_shuffle | `AyaVisionForConditionalGeneration` |
| SigLIP | avg_pool | `PerceptionLMForConditionalGeneration` |
"""

from typing import Any

from torch import nn
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PerceptionLMConfig,
    PerceptionLMForConditionalGeneration,
    PerceptionLMImageProcessor,
)

from kd_vlm.encoder import Encoder
from kd_vlm.language_model import LanguageModel
from kd_vlm.towers import siglip

StockVlm = (
    LlavaForConditionalGeneration
    | FastVlmForConditionalGeneration
    | AyaVisionForConditionalGeneration
    | PerceptionLMForConditionalGeneration
)


def stock_model(encoder: Encoder, lm: LanguageModel, connector: str, factor: int | None) -> StockVlm:
    """The stock model with the weights of tower and language model; its connector is fresh and yet to be drawn.

    Args:
        encoder: The tower and its choice of tokens.
        lm: The language model.
        connector: One that `connectors.check_connector` accepts.
        factor: Of a connector that reduces tokens.
    """
    if connector == "avg_pool":
        model, tower = _perception_lm(encoder, lm, factor)
    else:
        tower = encoder.tower
        shared = {
            "vision_config": tower.config,
            "text_config": lm.model.config,
            "image_token_index": lm.image_id,
            "tie_word_embeddings": lm.model.config.tie_word_embeddings,
        }
        shuffled = connector == "pixel_shuffle"
        model = _pixel_shuffle(encoder, shared, factor) if shuffled else _llava(encoder, shared, connector)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(lm.model.base_model.state_dict())
    model.lm_head.weight.data.copy_(lm.model.get_output_embeddings().weight)
    model.tie_weights()
    model.model.vision_tower.requires_grad_(False)
    return model


def stock_processor(
    encoder: Encoder, tokenizer: Any, connector: str, factor: int | None, chat_template: str
) -> LlavaProcessor:
    """The processor counts visual tokens as (edge // patch_size) ** 2 plus the tower's class token, and drops one
    where the strategy is `default`.

    Raises:
        ValueError: If that number is another one than the tower's.
    """
    pooled = encoder.grid // (factor or 1)
    patch = encoder.size // pooled
    if encoder.size // patch != pooled:
        raise ValueError(
            f"No stock processor counts {pooled} x {pooled} tokens in a picture of {encoder.size} pixels: "
            f"{encoder.size} // {patch} is {encoder.size // patch}."
        )
    return LlavaProcessor(
        image_processor=_tiled_image_processor(encoder) if connector == "avg_pool" else encoder.processor,
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=_strategy(encoder),
        num_additional_image_tokens=encoder.n_class,
        chat_template=chat_template,
    )


def _tiled_image_processor(encoder: Encoder) -> PerceptionLMImageProcessor:
    """SigLIP's squash for PerceptionLM, which takes pictures as one tile each: pixels (n, 1, 3, s, s)."""
    return PerceptionLMImageProcessor(
        vision_input_type="vanilla",
        tile_size=encoder.size,
        size={"height": encoder.size, "width": encoder.size},
        max_num_tiles=1,
        resample=encoder.processor.resample,
        image_mean=encoder.processor.image_mean,
        image_std=encoder.processor.image_std,
    )


def _strategy(encoder: Encoder) -> str:
    return "default" if encoder.first else "full"


def _llava(encoder: Encoder, shared: dict[str, Any], connector: str) -> StockVlm:
    shared |= {
        "image_seq_length": encoder.n_tokens,
        "projector_hidden_act": "gelu" if connector == "mlp2x_gelu" else "linear",
    }
    if encoder.kind == "map":
        return FastVlmForConditionalGeneration(FastVlmConfig(**shared))
    tokens: Any = {"vision_feature_layer": encoder.layer, "vision_feature_select_strategy": _strategy(encoder)}
    return LlavaForConditionalGeneration(LlavaConfig(**shared, **tokens))


def _pixel_shuffle(encoder: Encoder, shared: dict[str, Any], factor: int | None) -> StockVlm:
    shared |= {
        "vision_feature_layer": encoder.layer,
        "vision_feature_select_strategy": _strategy(encoder),
        "downsample_factor": factor,
        "alignment_intermediate_size": 2 * shared["text_config"].hidden_size,
    }
    return AyaVisionForConditionalGeneration(AyaVisionConfig(**shared))


def _perception_lm(encoder: Encoder, lm: LanguageModel, factor: int | None) -> tuple[StockVlm, nn.Module]:
    """PerceptionLM reads its tower's last state, so the tower is timm's form of SigLIP and ends with the layer."""
    tower = siglip.timm_form(encoder.tower, encoder.layer)
    config = PerceptionLMConfig(
        vision_config=tower.config,
        text_config=lm.model.config,
        vision_use_cls_token=False,
        projector_pooling_ratio=factor or 1,
        image_token_id=lm.image_id,
        video_token_id=-1,  # no token: videos are not trained
        tie_word_embeddings=lm.model.config.tie_word_embeddings,
    )
    return PerceptionLMForConditionalGeneration(config), tower
