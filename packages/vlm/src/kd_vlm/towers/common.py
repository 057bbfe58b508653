"""What every kind of tower needs: the result of building one, loading its weights, reading timm's shapes."""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kd_vlm.open_clip_config import CONFIG_FILE, WEIGHTS_FILE


@dataclass(frozen=True)
class Built:
    """A tower with its weights.

    Attributes:
        tower: Stock transformers model.
        width: Channels of one token.
        grid: Tokens along one edge.
        n_class: Class tokens before them: 1 or 0.
        layer: Index into the tower's `hidden_states`; -1 for maps.
    """

    tower: PreTrainedModel
    width: int
    grid: int
    n_class: int
    layer: int


def load(tower: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load `weights` in float32; every tensor of the tower must be there, and none besides.

    Raises:
        ValueError: If one is missing, left over or of another shape.
    """
    try:
        tower.load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{WEIGHTS_FILE} does not fit {CONFIG_FILE}: {error}") from None


def no_place(key: str, kind: str) -> ValueError:
    return ValueError(f"{WEIGHTS_FILE}: {key} has no place in a {kind}.")


def timm_shape(name: str, **arguments: Any) -> nn.Module:
    """The timm model `name` without memory for its weights, to read its shapes from.

    Raises:
        ValueError: If timm does not know it.
    """
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except RuntimeError as error:
        raise ValueError(f"{CONFIG_FILE}: timm {timm.__version__} cannot build {name!r}: {error}") from None


def split_qkv(value: Tensor, names: tuple[str, str, str], prefix: str, leaf: str) -> dict[str, Tensor]:
    """One stacked projection (3w, ...) as three."""
    return {f"{prefix}.{name}.{leaf}": part for name, part in zip(names, value.chunk(3), strict=True)}


def hidden_layer(layer: int | str | None, n_layers: int, default: int) -> int:
    """The index into `n_layers + 1` hidden states (the first is the embedding) that a recipe's `layer` means.

    Raises:
        ValueError: If there is no such layer.
    """
    index = {None: default, "last": -1}.get(layer, layer)  # type: ignore[arg-type]
    if not isinstance(index, int) or not -n_layers - 1 <= index <= n_layers:
        raise ValueError(f"feature.layer: expected last or -{n_layers + 1} to {n_layers}, got {layer!r}.")
    return index


def stage_count(layer: int | str | None, n_stages: int) -> int:
    """How many stages of a hierarchical tower are run for a recipe's `layer`; the last is -1, the one before it -2.

    Raises:
        ValueError: If there is no such stage.
    """
    index = {None: -1, "last": -1}.get(layer, layer)  # type: ignore[arg-type]
    if not isinstance(index, int) or not -n_stages <= index <= -1:
        raise ValueError(f"feature.layer: expected last or -{n_stages} to -1 (stages from the end), got {layer!r}.")
    return n_stages + 1 + index
