"""The loop of a language model: batches, AdamW, cosine with warmup, checkpoints from which it goes on bit for bit.

A VLM's stages run on transformers' Trainer (`trainer.py`). A language model of one's own is small and trained in one
process; this loop shares optimiser, schedule and checkpoints with the Trainer, and a test compares their losses.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter

from kd_vlm.checkpoint import Checkpoints
from kd_vlm.optim import Group, NonFiniteError, Step, all_of, build_optimizer, learning_rate_scale, warmup_steps
from kd_vlm.signals import Stopped, stop_flag
from kd_vlm.state import load_state, save_state

Batch = TypeVar("Batch")


def fit(
    groups: Sequence[Group],
    plan: Sequence[Batch],
    loss_of: Callable[[Batch], Tensor],
    *,
    checkpoint: Path,
    save_every: int,
    warmup_share: float,
    weight_decay: float,
    clip: float,
    beta2: float,
    on_step: Callable[[Step], None],
) -> None:
    """Run the steps of `plan` that `checkpoint` has not yet seen; afterwards the checkpoint holds the last one.

    Args:
        groups: What is trained.
        plan: The samples of every step, all epochs of it. It must be the same after a restart.
        loss_of: The mean loss over the supervised tokens of the given samples.
        checkpoint: Folder of checkpoints, one committed every `save_every` steps and at the end.
        save_every: Steps between two checkpoints.
        warmup_share: Share of the steps in which the learning rate rises linearly; then it falls as a cosine to 0.
        weight_decay: Decoupled; applied to matrices only.
        clip: Largest norm of the gradient over all groups.
        beta2: AdamW's decay of the second moment; the first has 0.9.
        on_step: Called after every step.

    Raises:
        NonFiniteError: If the loss or the gradient is not finite.
        Stopped: If a signal asked for it; the checkpoint stands.
    """
    named, checkpoints = all_of(groups), Checkpoints(checkpoint)
    optimizer = build_optimizer(groups, weight_decay, beta2)
    start = checkpoints.newest() or 0
    if start:
        load_state(checkpoints.place(start), named, None if start == len(plan) else optimizer)
    n_warmup = warmup_steps(warmup_share, len(plan))
    with stop_flag() as stop:
        for number in range(start, len(plan)):
            began, done, last = time.perf_counter(), number + 1, number + 1 == len(plan)
            scale = learning_rate_scale(number, len(plan), n_warmup)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale
            loss, norm = _backward(loss_of(plan[number]), named, clip)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise NonFiniteError(
                    f"Step {done}: loss {loss}, gradient norm {norm}. Lower the learning rate or the clip, then run "
                    f"again; the checkpoints in {checkpoint} are of earlier steps."
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            on_step(Step(done, loss, groups[0].lr * scale, norm, time.perf_counter() - began))
            if last or stop.number or done % save_every == 0:
                checkpoints.save(
                    done, partial(save_state, named=named, optimizer=None if last else optimizer, step=done)
                )
            if stop.number:
                raise Stopped(stop.number, done)


def _backward(loss: Tensor, named: Mapping[str, Parameter], clip: float) -> tuple[float, float]:
    """The loss, and the norm of its gradient before that is clipped."""
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(named.values(), clip)
    return loss.item(), norm.item()
