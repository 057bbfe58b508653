"""`open_clip_config.json`: what an encoder is, checked. Nothing in it can run code or name a model elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kd_vlm.reading import FileError, read_json

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_MODEL_KEYS = {
    *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu"),
    *("custom_text", "init_logit_scale", "init_logit_bias"),
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VitCfg(_Strict):
    """`vision_cfg` of open_clip's own vision transformer; what has no equal in `CLIPVisionModel` is refused."""

    image_size: int = Field(224, gt=0)
    layers: int = Field(12, gt=1)
    width: int = Field(768, gt=0)
    head_width: int = Field(64, gt=0)
    mlp_ratio: float = Field(4.0, gt=0)
    patch_size: int = Field(16, gt=0)
    patch_dropout: float = Field(0.0, ge=0, lt=1, description="Acts in training only.")
    pool_type: Literal["tok", "avg", "none"] = Field("tok", description="After the layers that are used here.")
    output_tokens: bool = False


class TimmCfg(_Strict):
    """`vision_cfg` of a timm trunk. Pooling and projection come after the tokens that are used here."""

    timm_model_name: str = Field(pattern=r"^[a-z0-9_]+$", description="A name of timm's registry, not of a hub.")
    timm_model_pretrained: Literal[False] = False
    timm_pool: str = "avg"
    timm_proj: str | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None
    image_size: int = Field(224, gt=0)


class PreprocessCfg(_Strict):
    """open_clip's `preprocess_cfg`: how a picture becomes the encoder's input."""

    size: int | tuple[int, int] | tuple[int, int, int] | None = None
    mode: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    fill_color: int = 0


@dataclass(frozen=True)
class EncoderConfig:
    vision: VitCfg | TimmCfg
    preprocess: PreprocessCfg
    embed_dim: int
    quick_gelu: bool

    @property
    def size(self) -> int:
        """Edge of the input picture in pixels."""
        size = self.preprocess.size or self.vision.image_size
        height, width = (size, size) if isinstance(size, int) else size[-2:]
        if not height == width == self.vision.image_size:
            raise ValueError(
                f"Expected one square input size, got vision_cfg.image_size={self.vision.image_size} and "
                f"preprocess_cfg.size={self.preprocess.size}."
            )
        return height


def read_config(folder: Path) -> EncoderConfig:
    """`open_clip_config.json` of `folder`, checked.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it holds an unknown key, or names a model elsewhere.
    """
    path = existing(folder / CONFIG_FILE)
    try:
        whole = read_json(path)
        model, preprocess = whole["model_cfg"], whole["preprocess_cfg"]
        vision, embed_dim = dict(model["vision_cfg"]), int(model["embed_dim"])
        text = dict(model.get("text_cfg", {}))
    except FileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not an open_clip configuration: {error!r}.") from None
    _refuse_elsewhere(path, model, text)
    schema: type[VitCfg | TimmCfg] = TimmCfg if "timm_model_name" in vision else VitCfg
    try:
        return EncoderConfig(
            vision=schema.model_validate(vision),
            preprocess=PreprocessCfg.model_validate(preprocess),
            embed_dim=embed_dim,
            quick_gelu=bool(model.get("quick_gelu", False)),
        )
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']} (got {p['input']!r})" for p in error.errors())
        raise ValueError(f"{path}: no stock tower for this configuration: {problems}.") from None


def existing(path: Path) -> Path:
    """`path`, which must be a file of an open_clip folder.

    Raises:
        FileNotFoundError: If it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected an open_clip folder with {path.name} at {path.parent}, found none.")
    return path


def _refuse_elsewhere(path: Path, model: dict[str, Any], text: dict[str, Any]) -> None:
    """The text tower is not built here, so its tokenizer may have any name; a model that is named elsewhere may not."""
    elsewhere = [key for key in text if key.startswith("hf_") and not key.startswith("hf_tokenizer")]
    if unknown := elsewhere or sorted(set(model) - _MODEL_KEYS):
        raise ValueError(f"{path}: model_cfg must describe the whole model by itself; found {', '.join(unknown)}.")
