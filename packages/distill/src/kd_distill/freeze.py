"""Towers that stay as they are while the rest is trained."""

from collections.abc import Iterable, Sequence
from types import MethodType
from typing import Any, Literal

from torch import nn

Tower = Literal["image", "text"]


def freeze(model: Any, towers: Iterable[Tower]) -> None:
    """Freeze towers of a CLIP model: no gradient, and eval mode whatever `train()` is called later.

    Eval mode matters as much as the gradient: batch norm would go on averaging, and dropout and stochastic depth would
    go on drawing. A tower's projection belongs to it; the logit scale and bias to neither.

    Args:
        model: An open_clip CLIP or CustomTextCLIP.
        towers: `image`, `text` or both.
    """
    for tower in towers:
        modules, vectors = parts(model, tower)
        for module in modules:
            module.requires_grad_(False)
            # in a copy of the module it is the copy's; a closure would go on to switch the original
            module.train = MethodType(_stay_in_eval, module)  # type: ignore[method-assign]
            module.train()
        for vector in vectors:
            vector.requires_grad_(False)


def parts(model: Any, tower: Tower) -> tuple[Sequence[nn.Module], Sequence[nn.Parameter]]:
    """Modules and loose parameters of a tower.

    Raises:
        ValueError: If `tower` is neither `image` nor `text`.
    """
    if tower == "image":
        return [model.visual], []
    if tower != "text":
        raise ValueError(f"Expected the towers 'image' or 'text', got {tower!r}.")
    if hasattr(model, "text"):
        return [model.text], []
    modules: list[nn.Module] = [model.transformer, model.token_embedding, model.ln_final]
    vectors: list[nn.Parameter] = [model.positional_embedding]
    if isinstance(model.text_projection, nn.Module):
        modules.append(model.text_projection)
    elif model.text_projection is not None:
        vectors.append(model.text_projection)
    return modules, vectors


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """What `train` is of a frozen module."""
    return nn.Module.train(module, False)
