"""Which implementation of attention the language model runs."""

from importlib.util import find_spec
from typing import Any

import torch

from kd_vlm.packed_attention import BY_SAMPLE


def set_attention(model: Any, name: str, precision: str, *, packed: bool = False) -> str:
    """Make `model` attend by `name`; `auto` takes flash_attention_2 where it can run, else sdpa. Gives the one taken.

    Packed rows get sdpa once a sample; see `packed_attention`.

    Raises:
        ValueError: If flash_attention_2 is asked for and cannot run.
    """
    able = torch.cuda.is_available() and find_spec("flash_attn") is not None and precision in ("bf16", "fp16")
    if name == "flash_attention_2" and not able:
        raise ValueError(
            "attention: flash_attention_2 needs a CUDA device, the package flash-attn and precision bf16 or fp16; "
            "set attention: sdpa (equal up to rounding) or auto."
        )
    taken = ("flash_attention_2" if able else BY_SAMPLE if packed else "sdpa") if name == "auto" else name
    model.model.language_model.set_attn_implementation(taken)
    return taken
