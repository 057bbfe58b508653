"""A training's state in one safetensors file, replaced atomically."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

STEP = "step"


def save_checkpoint(path: Path, step: int, task: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write module, optimiser moments and steps done; a kill at any moment leaves the old or the new file."""
    from safetensors.torch import save_file

    tensors = {f"task.{name}": tensor for name, tensor in task.state_dict().items()}
    for name, parameter in task.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{moment}.{name}"] = value
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    part = path.with_suffix(".part")
    save_file(tensors, str(part), metadata={STEP: str(step)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def load_checkpoint(path: Path, task: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_checkpoint` wrote and return the number of steps done; 0 where there is no file."""
    from safetensors import safe_open

    if not path.exists():
        return 0
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
        step = int(file.metadata()[STEP])
    task.load_state_dict({k.removeprefix("task."): v for k, v in tensors.items() if k.startswith("task.")})
    moments: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, moment, name = key.split(".", 2)
            moments.setdefault(name, {})[moment] = value
    for name, parameter in task.named_parameters():
        if name in moments:
            optimizer.state[parameter] = moments[name]
    return step
