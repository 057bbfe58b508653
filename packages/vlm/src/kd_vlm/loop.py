"""One training stage: batches, AdamW, cosine with warmup, and a checkpoint from which it goes on bit for bit."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Group:
    """Parameters under one peak learning rate."""

    parameters: Mapping[str, Parameter]
    lr: float


@dataclass(frozen=True)
class Step:
    """What one optimiser step reports. `grad_norm` is the norm before clipping, `seconds` the step's wall time."""

    number: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float


class NonFiniteError(RuntimeError):
    """The loss or its gradient is no number; the parameters were not touched."""


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
        checkpoint: A safetensors file, replaced atomically every `save_every` steps and at the end.
        save_every: Steps between two checkpoints.
        warmup_share: Share of the steps in which the learning rate rises linearly; then it falls as a cosine to 0.
        weight_decay: Decoupled; applied to matrices only.
        clip: Largest norm of the gradient over all groups.
        beta2: AdamW's decay of the second moment; the first has 0.9.
        on_step: Called after every step.

    Raises:
        NonFiniteError: If the loss or the gradient is not finite.
    """
    named = {name: p for group in groups for name, p in group.parameters.items()}
    optimizer = _optimizer(groups, weight_decay, beta2)
    start = restore(checkpoint, named, optimizer) if checkpoint.is_file() else 0
    n_warmup = max(1, round(warmup_share * len(plan)))
    for number in range(start, len(plan)):
        began = time.perf_counter()
        scale = learning_rate_scale(number, len(plan), n_warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * scale
        loss = loss_of(plan[number])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(named.values(), clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise NonFiniteError(
                f"Step {number + 1}: loss {loss.item()}, gradient norm {norm.item()}. Lower the learning rate or the "
                f"clip, then run again; the checkpoint {checkpoint} is of an earlier step."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (number + 1) % save_every == 0 or number + 1 == len(plan):
            save(checkpoint, named, optimizer, number + 1)
        on_step(Step(number + 1, loss.item(), groups[0].lr * scale, norm.item(), time.perf_counter() - began))


def learning_rate_scale(step: int, n_steps: int, n_warmup: int) -> float:
    """The factor on the peak learning rate at `step` (from 0): linear to 1 in `n_warmup` steps, then a cosine to 0."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup + 1) / (n_steps - n_warmup + 1)))


def _optimizer(groups: Sequence[Group], weight_decay: float, beta2: float) -> torch.optim.AdamW:
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


def save(path: Path, named: Mapping[str, Parameter], optimizer: torch.optim.AdamW, step: int) -> None:
    """Write parameters, moments and the number of finished steps to `path`, which is replaced in one move."""
    tensors = {f"parameter/{name}": p.detach().contiguous() for name, p in named.items()}
    for name, p in named.items():
        state = optimizer.state[p]
        tensors[f"exp_avg/{name}"] = state["exp_avg"]
        tensors[f"exp_avg_sq/{name}"] = state["exp_avg_sq"]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(tensors, partial, metadata={"step": json.dumps(step)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def restore(path: Path, named: Mapping[str, Parameter], optimizer: torch.optim.AdamW | None) -> int:
    """Load what `save` wrote; returns the number of finished steps. Without an optimiser, the parameters alone.

    Raises:
        ValueError: If the checkpoint holds other parameters.
    """
    with safe_open(path, framework="pt") as file:
        saved = {key.removeprefix("parameter/") for key in file.keys() if key.startswith("parameter/")}  # noqa: SIM118
        if saved != set(named):
            raise ValueError(f"{path} belongs to another model: {sorted(saved ^ set(named))[:3]} differ. Remove it.")
        step = int(json.loads(file.metadata()["step"]))
        with torch.no_grad():
            for name, p in named.items():
                p.copy_(file.get_tensor(f"parameter/{name}"))
                if optimizer is not None:
                    optimizer.state[p] = {
                        "step": torch.tensor(float(step)),
                        "exp_avg": file.get_tensor(f"exp_avg/{name}"),
                        "exp_avg_sq": file.get_tensor(f"exp_avg_sq/{name}"),
                    }
    return step


def finished_steps(path: Path) -> int:
    """How many steps the checkpoint at `path` has behind it; 0 where there is none."""
    if not path.is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        return int(json.loads(file.metadata()["step"]))
