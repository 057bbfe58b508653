"""The training loop of every encoder, and the optimiser and schedule that it runs under."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from kd_distill.checkpoint import load_checkpoint, save_checkpoint
from kd_distill.pairs import Pairs
from kd_distill.task import DistillationTask, loss_and_gradients

LOG_EVERY, SAVE_EVERY = 25, 200


def build_optimizer(
    module: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices and none on vectors and scalars."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-6, fused=True)


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """Linear warmup to `peak`, then a cosine to zero at `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(
    task: DistillationTask,
    pairs: Pairs,
    *,
    weights: Callable[[int], Mapping[str, float]],
    tower_chunk: int | None = None,
    steps: int,
    batch_size: int,
    seed: int,
    lr: float,
    warmup: int,
    weight_decay: float,
    betas: tuple[float, float],
    clip_norm: float,
    checkpoint: Path,
    log: Callable[[int, dict[str, float]], None],
    progress: Callable[[int], None],
) -> None:
    """Train `task` for `steps` in all, from `checkpoint` where there is one.

    Args:
        weights: Of the loss terms at a step.
        tower_chunk: Pairs that the towers take at once; None for the whole batch.
        seed: Of the data order.
        checkpoint: File of the state; written every `SAVE_EVERY` steps.
        log: Called with (steps done, values) every `LOG_EVERY` steps.
        progress: Called with the number of steps done.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    optimizer = build_optimizer(task, lr=lr, weight_decay=weight_decay, betas=betas)
    start = load_checkpoint(checkpoint, task, optimizer)
    task.train()
    for step, batch in enumerate(pairs.steps(start, steps, batch_size=batch_size, order_seed=seed), start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, peak=lr, warmup=warmup, steps=steps)
        optimizer.zero_grad(set_to_none=True)
        loss, terms = loss_and_gradients(task, batch, weights(step), step=step, chunk=tower_chunk)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"The loss is {loss.item()} at step {step}; lower recipe.lr or use precision fp32."
            )
        norm = nn.utils.clip_grad_norm_(task.parameters(), clip_norm)
        optimizer.step()
        task.clamp_scales()
        done = step + 1
        progress(done)
        if done % LOG_EVERY == 0 or done == steps:
            values = {f"train/{name}": term.item() for name, term in terms.items()}
            values |= {"train/loss": loss.item(), "train/lr": optimizer.param_groups[0]["lr"]}
            log(done, values | {"train/grad_norm": norm.item(), "train/scale": task.student.logit_scale.exp().item()})
        if done % SAVE_EVERY == 0 or done == steps:
            save_checkpoint(checkpoint, done, task, optimizer)
