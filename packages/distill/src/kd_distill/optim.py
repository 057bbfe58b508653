"""The optimiser, and the learning rate as a function of the step."""

import math
from dataclasses import dataclass

import torch
from torch import nn


def build_optimizer(
    module: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float], eps: float
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and none on vectors and scalars.

    So biases, normalisation layers, logit scales and class tokens are spared; kernels, projections, token and position
    tables are not (open_clip's rule). Heads stand under the same rule as towers. What needs no gradient is left out.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


@dataclass(frozen=True)
class Schedule:
    """Linear warmup to `peak`, a cosine towards zero, and if asked for a linear end.

    Args:
        peak: Learning rate after warmup.
        warmup: Steps of it.
        steps: Steps that are trained.
        horizon: Step at which the cosine reaches zero; None: `steps`. A larger one makes the run the beginning of a
            longer schedule.
        cooldown: The last steps; they fall linearly to zero from where the cosine stands. With a `horizon` of 96 epochs
            and a cooldown, a run of 32 epochs equals the run of 96 up to the cooldown.
    """

    peak: float
    warmup: int
    steps: int
    horizon: int | None = None
    cooldown: int = 0

    def __call__(self, step: int) -> float:
        """The learning rate of the update that turns `step` steps done into `step` + 1."""
        begin = self.steps - self.cooldown
        if self.cooldown and step > begin:
            return self._cosine(begin) * (self.steps - step) / self.cooldown
        return self._cosine(step)

    def _cosine(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        whole = max(1, (self.horizon or self.steps) - self.warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / whole))


def average_of(model: nn.Module, decay: float | None) -> torch.optim.swa_utils.AveragedModel | None:
    """An exponential moving average of the parameters of `model` (buffers are copied); None where decay is None.

    Its first update copies the model; each later one keeps the share `decay` of what was there.
    """
    if decay is None:
        return None
    swa = torch.optim.swa_utils
    return swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(decay))
