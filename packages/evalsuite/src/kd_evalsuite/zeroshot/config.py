"""A strict look at an open_clip configuration before anything is loaded.

`open_clip_config.json` can name a model or tokenizer on a hub, and open_clip would fetch it. Only architectures and
preprocessing written out in the file are accepted.
"""

from pathlib import Path
from typing import Any

from kd_evalsuite.items import DataError
from kd_evalsuite.reading import read_json

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")  # open_clip takes them from the folder, not from the hub
TOP = {"model_cfg", "preprocess_cfg"}
MODEL = {
    "embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias",
    "nonscalar_logit_scale", "custom_text",
}  # fmt: skip
VISION = {
    "layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value", "patch_dropout",
    "attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "no_ln_pre", "pos_embed_type",
    "final_ln_after_pool", "pool_type", "output_tokens", "act_kwargs", "norm_kwargs", "qk_norm",
    "scaled_cosine", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias",
    "timm_drop", "timm_drop_path", "timm_use_cls",
}  # fmt: skip
TEXT = {
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value", "embed_cls",
    "pad_id", "eos_id", "no_causal_mask", "final_ln_after_pool", "pool_type", "proj_bias", "proj_type",
    "output_tokens", "act_kwargs", "norm_kwargs", "tokenizer_kwargs", "correct_cls_mask", "hf_tokenizer_name",
}  # fmt: skip
PREPROCESS = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}


def check_config(folder: Path) -> dict[str, Any]:
    """The configuration of an open_clip folder, if it stands on its own.

    Raises:
        DataError: If files are missing, or a key is one that could make open_clip fetch something, or unknown.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"Expected an open_clip folder with {CONFIG} and {WEIGHTS}; {folder} has no {name}.")
    try:
        config = read_json(folder / CONFIG, DataError)
        model = config["model_cfg"]
        sections = [
            ("", config, TOP),
            ("model_cfg", model, MODEL),
            ("model_cfg.vision_cfg", model["vision_cfg"], VISION),
            ("model_cfg.text_cfg", model["text_cfg"], TEXT),
            ("preprocess_cfg", config.get("preprocess_cfg", {}), PREPROCESS),
        ]
        problems = [f"{name}.{key}".lstrip(".") for name, part, known in sections for key in part if key not in known]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / CONFIG}: not an open_clip configuration: {error!r}") from None
    if problems:
        raise DataError(f"{folder / CONFIG}: keys that are not accepted: {', '.join(problems)}.")
    _check_timm(folder, model["vision_cfg"])
    if model["text_cfg"].get("hf_tokenizer_name") and not all((folder / name).is_file() for name in TOKENIZER):
        raise DataError(f"{folder / CONFIG}: hf_tokenizer_name needs {' and '.join(TOKENIZER)} in the folder.")
    return dict(config)


def _check_timm(folder: Path, vision: dict[str, Any]) -> None:
    name = vision.get("timm_model_name")
    if vision.get("timm_model_pretrained"):
        raise DataError(f"{folder / CONFIG}: timm_model_pretrained must be false; it would download weights.")
    if name is not None and (not isinstance(name, str) or any(mark in name for mark in ":/\\")):
        raise DataError(f"{folder / CONFIG}: expected the name of a timm architecture, got {name!r}.")
