"""What ranks tell each other: embeddings, gathered once with their exact gradient, and sums."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather(tensors: Sequence[Float[Tensor, "b d"]]) -> list[Float[Tensor, "n d"]]:
    """The rows of all ranks, rank 0's first, of each of `tensors`: one collective for all of them.

    The gradient of a rank's rows is the sum of what all ranks' losses say of them, one collective again. With each
    rank's loss the mean over its own rows, the mean over ranks of a parameter's gradient is then that of one process.

    Args:
        tensors: Of the same b on every rank, and of one type. They may differ in width.
    """
    if rank_and_world()[1] == 1 or not tensors:
        return list(tensors)
    kinds = {(len(t), t.dtype) for t in tensors}
    if len(kinds) > 1:
        raise ValueError(f"Expected tensors of one length and type to gather, got {sorted(map(str, kinds))}.")
    return list(_Gather.apply(*tensors))


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of `x` over all ranks, with its exact gradient."""
    return x if rank_and_world()[1] == 1 else _Sum.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        packed = torch.cat(tensors, dim=1).contiguous()
        world = rank_and_world()[1]
        everyone = packed.new_empty(world * len(packed), packed.shape[1])
        dist.all_gather_into_tensor(everyone, packed)
        ctx.widths, ctx.rows = [t.shape[1] for t in tensors], len(packed)
        return tuple(part.contiguous() for part in everyone.split(ctx.widths, dim=1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad) if needed]
        packed = torch.cat([grads[i] for i in wanted], dim=1).contiguous()
        own = packed.new_empty(ctx.rows, packed.shape[1])
        dist.reduce_scatter_tensor(own, packed)
        out: list[Tensor | None] = [None] * len(grads)
        for i, part in zip(wanted, own.split([ctx.widths[i] for i in wanted], dim=1), strict=True):
            out[i] = part
        return tuple(out)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone().contiguous()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone().contiguous()
        dist.all_reduce(total)
        return total
