"""What a training must remember to go on bit for bit, in one safetensors file: parameters and AdamW's moments.

Order of data, learning rate and random numbers are functions of the number of steps done; nothing of them is kept.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

STATE = "state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


def save_state(folder: Path, named: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None, step: int) -> None:
    """Write parameters, and the moments of `optimizer` where one is given, to `folder`."""
    tensors = {f"parameter/{name}": p.detach().contiguous() for name, p in named.items()}
    for name, p in named.items() if optimizer is not None else ():
        for moment in MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[p][moment].contiguous()  # type: ignore[union-attr]
    save_file(tensors, folder / STATE, metadata={"step": str(step)})


def load_state(folder: Path, named: Mapping[str, Parameter], optimizer: torch.optim.Optimizer | None) -> None:
    """Take what `save_state` wrote; without an optimiser, the parameters alone.

    Raises:
        ValueError: If it holds other parameters, or no moments where they are asked for.
    """
    path = folder / STATE
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        saved = {key.removeprefix("parameter/") for key in keys if key.startswith("parameter/")}
        if saved != set(named):
            raise ValueError(f"{path} belongs to another model: {sorted(saved ^ set(named))[:3]} differ. Remove it.")
        if optimizer is not None and not any(key.startswith(MOMENTS[0]) for key in keys):
            raise ValueError(f"{path} is the end of a stage and holds no optimiser; it cannot be trained further.")
        step = float(file.metadata()["step"])
        with torch.no_grad():
            for name, p in named.items():
                p.copy_(file.get_tensor(f"parameter/{name}"))
                if optimizer is not None:
                    moments = {m: torch.empty_like(p).copy_(file.get_tensor(f"{m}/{name}")) for m in MOMENTS}
                    optimizer.state[p] = {"step": torch.tensor(step, device=_step_device(optimizer, p)), **moments}


def _step_device(optimizer: torch.optim.Optimizer, parameter: Parameter) -> torch.device:
    """Where AdamW keeps its count: beside the parameters if it is fused."""
    fused = any(group.get("fused") for group in optimizer.param_groups)
    return parameter.device if fused else torch.device("cpu")
