"""What an open_clip configuration may hold. One from outside can name models on a hub, so nothing unknown passes."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
Three = tuple[float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class BlockCfg(_Strict):
    """What image and text transformers of open_clip share. Defaults are open_clip's, so are the names."""

    mlp_ratio: float = Field(4.0, gt=0)
    ls_init_value: float | None = None
    final_ln_after_pool: bool = False
    output_tokens: Literal[False] = Field(False, description="Patch tokens are read by towers.image_features.")
    act_kwargs: dict[str, float | bool | str] | None = None
    norm_kwargs: dict[str, float | bool] | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class VisionCfg(BlockCfg):
    """An image tower: open_clip's ViT (`layers` a number), its ResNet (`layers` four numbers), or a timm model."""

    image_size: int = Field(224, gt=0)
    layers: int | tuple[int, int, int, int] = 12
    width: int = Field(768, gt=0)
    head_width: int = Field(64, gt=0)
    patch_size: int = Field(16, gt=0)
    patch_dropout: float = Field(0.0, ge=0, lt=1)
    no_ln_pre: bool = False
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    pool_type: Literal["tok", "avg"] = "tok"
    timm_model_name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_]+$", description="Of timm's registry, not a hub's."
    )
    timm_model_pretrained: Literal[False] = Field(False, description="True would fetch weights.")
    timm_pool: Literal["", "avg", "token", "map", "abs_attn", "rot_attn"] = "avg"
    timm_proj: Literal["", "linear", "mlp", "none"] = "linear"
    timm_proj_bias: bool = False
    timm_drop: float = Field(0.0, ge=0, lt=1)
    timm_drop_path: float | None = Field(None, ge=0, lt=1)


class TokenizerKwargs(_Strict):
    """How captions are cleaned; `lower` for CLIP's tokenizer and `whitespace` for others where nothing is said."""

    clean: Literal["canonicalize", "lower", "whitespace"]


class TextCfg(BlockCfg):
    """open_clip's text transformer."""

    context_length: int = Field(77, gt=0)
    vocab_size: int = Field(49408, gt=0)
    hf_tokenizer_name: str | None = Field(None, description="The tokenizer's files lie in the model's folder.")
    tokenizer_kwargs: TokenizerKwargs | None = None
    width: int = Field(512, gt=0)
    heads: int = Field(8, gt=0)
    layers: int = Field(12, gt=0)
    embed_cls: bool = False
    pad_id: int = 0
    eos_id: int = 2
    no_causal_mask: bool = False
    pool_type: Literal["first", "last", "argmax", "eos"] = "argmax"
    proj_bias: bool = False
    proj_type: Literal["linear", "none"] = "linear"


class ModelCfg(_Strict):
    """A CLIP model."""

    embed_dim: int = Field(gt=0)
    vision_cfg: VisionCfg
    text_cfg: TextCfg
    quick_gelu: bool = Field(False, description="x * sigmoid(1.702 x) in place of GELU; timm towers ignore it.")
    custom_text: bool = False
    init_logit_scale: float | None = None
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False


class PreprocessCfg(_Strict):
    """How an image becomes a model's input."""

    size: int | tuple[int, int] | None = None
    mode: Literal["RGB"] = "RGB"
    mean: Three = OPENAI_MEAN
    std: Three = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    fill_color: int = 0


def check_architecture(config: Mapping[str, Any], where: str) -> ModelCfg:
    """The model configuration in types.

    Raises:
        ValueError: If a key is unknown or missing, a value has the wrong type or range, or would make open_clip or
            timm fetch something. Names the keys.
    """
    return _validated(ModelCfg, config, where)


def check_preprocessing(config: Mapping[str, Any], where: str) -> PreprocessCfg:
    """The preprocessing configuration in types; raises as `check_architecture`."""
    return _validated(PreprocessCfg, config, where)


def _validated(kind: Any, config: Mapping[str, Any], where: str) -> Any:
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        lines = [
            f"{where}: {'.'.join(map(str, p['loc'])) or 'the whole'}: {p['msg']}, got {p['input']!r:.60}"
            for p in error.errors()
        ]
        raise ValueError("\n".join(lines)) from None
