"""What a training must remember to go on bit for bit: as tensors by name, and values of JSON."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kd_distill.checkpoint import Saved
from kd_distill.distributed import Ranks
from kd_distill.views import stream


class TrainingState:
    """Student and heads, optimiser, loss scaler, moving average, random numbers, and counts of skipped steps.

    The position in the data and in the schedule is the number of steps done; nothing else is remembered of them.
    """

    def __init__(
        self,
        task: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        average: torch.optim.swa_utils.AveragedModel | None = None,
    ) -> None:
        self.task, self.optimizer, self.scaler, self.average = task, optimizer, scaler, average
        self.skipped, self.skipped_in_a_row = 0, 0

    def tensors(self, ranks: Ranks) -> dict[str, Tensor]:
        """All of it that is tensors; every rank must ask, for each has random numbers of its own."""
        found = {f"task.{name}": tensor for name, tensor in self.task.state_dict().items()}
        for name, parameter in self.task.named_parameters():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer.{moment}.{name}"] = value
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for kind, random in _random_state(ranks.device).items():
            found |= {f"random.{kind}.{rank}": state for rank, state in enumerate(ranks.gather(random))}
        return found

    def values(self, ranks: Ranks) -> dict[str, Any]:
        """The rest."""
        return {
            "world": ranks.world,
            "scaler": self.scaler.state_dict(),
            "skipped": [self.skipped, self.skipped_in_a_row],
        }

    def restore(self, saved: Saved, ranks: Ranks) -> None:
        """Take what `tensors` and `values` gave.

        With another number of ranks than it was saved by, random numbers stay as they are: dropout has no equal then.

        Raises:
            ValueError: If it is of another model.
        """
        try:
            self.task.load_state_dict(_under("task.", saved.tensors))
            if self.average is not None:
                self.average.load_state_dict(_under("average.", saved.tensors))
        except RuntimeError as error:
            raise ValueError(f"The checkpoint of step {saved.step} is of another model: {error}") from None
        parameters = dict(self.task.named_parameters())
        for key, value in _under("optimizer.", saved.tensors).items():
            moment, name = key.split(".", 1)
            like = parameters[name] if value.ndim else value  # moments are laid out as their parameter is
            self.optimizer.state[parameters[name]][moment] = torch.empty_like(
                like, device=parameters[name].device, requires_grad=False
            ).copy_(value)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(saved.values["scaler"])
        self.skipped, self.skipped_in_a_row = saved.values["skipped"]
        if saved.values["world"] == ranks.world:
            _set_random_state({kind: saved.tensors[f"random.{kind}.{ranks.rank}"] for kind in _kinds(ranks.device)})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# Dropout and its like draw from torch's global generators; numpy's and Python's are not drawn from.


def _kinds(device: torch.device) -> tuple[str, ...]:
    return ("cpu", "cuda") if device.type == "cuda" else ("cpu",)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    read = {"cpu": torch.get_rng_state, "cuda": torch.cuda.get_rng_state}
    return {kind: read[kind]() for kind in _kinds(device)}


def _set_random_state(states: dict[str, Tensor]) -> None:
    write = {"cpu": torch.set_rng_state, "cuda": torch.cuda.set_rng_state}
    for kind, state in states.items():
        write[kind](state)


@contextmanager
def random_numbers(seed: int, ranks: Ranks) -> Iterator[None]:
    """Inside, torch's global generators depend on (seed, rank) alone; outside they are as they were."""
    devices = [ranks.device] if ranks.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(stream(seed, "dropout", ranks.rank).integers(2**62)))  # noqa: TID251  dropout's
        yield


def parameters_hash(module: nn.Module) -> str:
    """A sha256 over the names and bytes of the parameters that are trained."""
    total = hashlib.sha256()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            total.update(name.encode())
            total.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
