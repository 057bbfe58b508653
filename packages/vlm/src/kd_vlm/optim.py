"""What is trained, under which learning rate, and how that moves: AdamW, linear warmup, cosine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import Parameter


@dataclass(frozen=True)
class Group:
    """Parameters under one peak learning rate."""

    parameters: Mapping[str, Parameter]
    lr: float


@dataclass(frozen=True)
class Step:
    """What one optimiser step reports.

    Attributes:
        number: Steps done, this one among them.
        loss: Of the whole step, over all ranks.
        lr: Of the first group.
        grad_norm: Before clipping.
        seconds: Wall time since the step before.
        data_seconds: Of those, waiting for batches.
        tokens: Without padding, over all ranks; 0 where nobody counts them.
    """

    number: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float
    data_seconds: float = 0.0
    tokens: int = 0


class NonFiniteError(FloatingPointError):
    """The loss or its gradient is no number; the parameters were not touched."""


def all_of(groups: Sequence[Group]) -> dict[str, Parameter]:
    """Every parameter of the groups by its name."""
    return {name: p for group in groups for name, p in group.parameters.items()}


def learning_rate_scale(step: int, n_steps: int, n_warmup: int) -> float:
    """The factor on the peak learning rate at `step` (from 0): linear to 1 in `n_warmup` steps, then a cosine to 0."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup + 1) / (n_steps - n_warmup + 1)))


def warmup_steps(warmup_share: float, n_steps: int) -> int:
    return max(1, round(warmup_share * n_steps))


def build_optimizer(groups: Sequence[Group], weight_decay: float, beta2: float) -> torch.optim.AdamW:
    """AdamW with betas (0.9, `beta2`) and eps 1e-8; weight decay is decoupled and applied to matrices only."""
    split = [
        {"params": members, "lr": group.lr, "peak": group.lr, "weight_decay": decay}
        for group in groups
        for decay, members in (
            (weight_decay, [p for p in group.parameters.values() if p.ndim > 1]),
            (0.0, [p for p in group.parameters.values() if p.ndim <= 1]),
        )
        if members
    ]
    return torch.optim.AdamW(split, betas=(0.9, beta2), eps=1e-8, fused=True)
