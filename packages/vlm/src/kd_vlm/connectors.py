"""What stands between vision tower and language model, and the stock class that holds each kind.

| kind | stock class | what it computes |
|---|---|---|
| `mlp2x_gelu` | Llava, FastVLM | linear, GELU, linear |
| `linear` | Llava, FastVLM | one linear layer; the second is a frozen identity, the activation none |
| `identity` | Llava, FastVLM | nothing; both layers are frozen identities, so tower and language model have one width |
| `pixel_shuffle` | AyaVision | factor x factor tokens side by side in one, LayerNorm, SwiGLU MLP |
| `avg_pool` | PerceptionLM | linear, GELU, linear, then the mean of factor x factor tokens |

Nothing is folded or rewritten at export: what is trained is the stock module.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from kd_vlm.choices import CONNECTORS, TOKEN_REDUCING
from kd_vlm.encoder import Encoder


def check_connector(encoder: Encoder, text_width: int, kind: str, factor: int | None) -> None:
    """Whether a stock class can hold this connector behind this tower.

    Raises:
        ValueError: If not, with the reason and what to take instead.
    """
    if kind not in CONNECTORS:
        raise ValueError(f"connector: unknown kind {kind!r}; known: {', '.join(CONNECTORS)}.")
    if kind == "identity" and encoder.width != text_width:
        raise ValueError(
            f"connector identity: the tower is {encoder.width} wide and the language model {text_width}; take linear."
        )
    if kind not in TOKEN_REDUCING:
        if factor is not None:
            raise ValueError(f"connector {kind} takes no factor, got {factor}.")
        return
    if factor is None or factor < 2 or encoder.grid % factor:
        divisors = [n for n in range(2, encoder.grid + 1) if encoder.grid % n == 0]
        raise ValueError(
            f"connector {kind}: expected a factor that divides the grid of {encoder.grid} x {encoder.grid} tokens "
            f"({', '.join(map(str, divisors))}), got {factor}."
        )
    if encoder.n_tokens != encoder.grid**2:
        raise ValueError(f"connector {kind} needs the whole grid: drop the class token, take no quirk.")
    if encoder.kind == "map":
        raise ValueError(
            f"connector {kind}: no stock class reduces the tokens of a timm map; take mlp2x_gelu or linear."
        )
    if kind == "avg_pool" and (encoder.kind != "siglip" or encoder.processor.do_center_crop):
        raise ValueError(
            "connector avg_pool: the stock class that pools (PerceptionLM) squashes pictures to a square, so only a "
            "SigLIP tower with resize_mode squash can stand behind it; take pixel_shuffle."
        )


def tokens_after(encoder: Encoder, factor: int | None) -> int:
    """Tokens of one picture that reach the language model."""
    return encoder.n_tokens if factor is None else (encoder.grid // factor) ** 2


def init_connector(projector: nn.Module, kind: str, generator: torch.Generator) -> None:
    """Draw the weights of a fresh connector: torch's default initialisation of a linear layer."""
    for name in ("linear_1", "linear_2"):
        layer: Any = getattr(projector, name)
        if (kind, name) in _IDENTITIES:
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        else:
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
            nn.init.uniform_(layer.bias, -(layer.in_features**-0.5), layer.in_features**-0.5, generator=generator)


_IDENTITIES = {("linear", "linear_2"), ("identity", "linear_1"), ("identity", "linear_2")}


def trainable_parameters(projector: nn.Module, kind: str) -> dict[str, Parameter]:
    """The connector's parameters by their name within it, without the identities, which stay as they are."""
    frozen = tuple(f"{layer}." for of, layer in _IDENTITIES if of == kind)
    return {name: p for name, p in projector.named_parameters() if not name.startswith(frozen)}


def projected(model: Any, features: Tensor) -> dict[str, BaseModelOutputWithPooling]:
    """Visual tokens as the stock forward takes them in `mm_encoder_outputs`, in place of pixels.

    Args:
        model: A stock VLM.
        features: What `visual_tokens` gives for the pictures in the order in which they occur (n, p, w).
    """
    tokens = model.model.multi_modal_projector(features)
    if tokens.ndim == 4:  # AyaVision's keeps the grid
        tokens = tokens.flatten(1, 2)
    listed: Any = list(tokens) if isinstance(model, LlavaForConditionalGeneration) else tokens
    return {"image": BaseModelOutputWithPooling(pooler_output=listed)}
