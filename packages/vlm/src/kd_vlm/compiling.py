"""torch.compile of the language model's layers, for as long as a stage trains.

All layers are alike, so what is compiled for the first serves all of them: seconds, not the minutes of a whole body.
A module compiles in place, so its class, its names and its checkpoints stay what they are. Shapes must be static:
packed rows are padded to one length, and what has other shapes (validation, sampled answers) runs as it is written.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def compiled_layers(model: nn.Module, wanted: bool, backend: str | Callable[..., Any] = "inductor") -> Iterator[None]:
    """Inside, the decoder layers of `model`'s language model are compiled, where that is wanted.

    A row with a picture of its own beside the packed one (a micro-batch without pictures, on several ranks) is the only
    other shape, compiled when it first comes.

    Args:
        backend: Of torch.compile.

    Raises:
        ValueError: If transformers marks no layer in it.
    """
    if not wanted:
        yield
        return
    layers = [m for m in model.model.language_model.modules() if isinstance(m, GradientCheckpointingLayer)]  # type: ignore[union-attr]
    if not layers:
        raise ValueError(f"compile: {type(model).__name__} has no decoder layers that are known; set compile: false.")
    for layer in layers:
        layer.compile(backend=backend, dynamic=False)
    hook = model.get_input_embeddings().register_forward_hook(_differentiable)  # type: ignore[operator]
    try:
        yield
    finally:
        hook.remove()
        for layer in layers:
            layer._compiled_call_impl = None


def _differentiable(module: nn.Module, given: Any, out: Tensor) -> Tensor:
    """Without a picture and with frozen embeddings the first layer would see another kind of input, and be another."""
    return out.requires_grad_() if torch.is_grad_enabled() else out


@contextmanager
def as_written() -> Iterator[None]:
    """Inside, compiled layers run eagerly: for what has other shapes than training."""
    with torch.compiler.set_stance("force_eager"):
        yield
