"""Processes that train one model together (torchrun), and the little that they tell each other."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn

TIMEOUT = timedelta(minutes=10)
BUCKET_BYTES = 32 << 20
CPU = torch.device("cpu")


class RankLostError(ConnectionError):
    """Another process is gone or does not answer (exit code 75: run again)."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; alone by default."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this process writes what there is one of: checkpoints, the journal, the model."""
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag, whether it is raised on any rank."""
        if self.world == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in raised.tolist())

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Each scalar as its mean over ranks."""
        names = sorted(values)
        packed = torch.stack([values[name].double() for name in names]).to(self.device)
        if self.world > 1:
            dist.all_reduce(packed)
        return dict(zip(names, (packed / self.world).tolist(), strict=True))

    def gather(self, value: Shaped[Tensor, " n"]) -> list[Shaped[Tensor, " n"]]:
        """The vector of every rank, on the CPU, in the order of ranks; they have one length."""
        if self.world == 1:
            return [value.cpu()]
        parts = [torch.empty_like(value, device=self.device) for _ in range(self.world)]
        dist.all_gather(parts, value.to(self.device))
        return [part.cpu() for part in parts]

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over ranks, as DDP does; in buckets, so that few messages are sent."""
        if self.world == 1:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            parts = flat.div_(self.world).split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Return when all ranks have come here."""
        if self.world > 1:
            dist.barrier()


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.nbytes > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        yield bucket


@contextmanager
def joined(timeout: timedelta = TIMEOUT) -> Iterator[Ranks]:
    """The ranks that torchrun started (gloo on CPU, nccl on GPU), or this process alone.

    A worker that torchrun starts again must not meet the addresses of the dead one in a store that torchrun shares with
    it, so the keys there carry the attempt; else the restarted gloo ranks hang. Machines do not count attempts alike,
    so for restarts of several the store must be of the workers' own (TORCH_DISABLE_SHARE_RDZV_TCP_STORE).

    Args:
        timeout: How long one rank waits for the others. One that dies is noticed at once where its machine can still
            say so; of a machine that is cut off nothing is heard, and only this ends the waiting.

    Raises:
        RankLostError: If another rank dies or does not answer.
        ValueError: If several machines may restart workers over the shared store.
    """
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if cuda:
        torch.cuda.set_device(device)
    if world == 1:
        yield Ranks(device=device)
        return
    rank = int(os.environ["RANK"])
    with _losses_told(rank):
        store = _store(world, timeout)
        dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=world, timeout=timeout)
        try:
            yield Ranks(rank, world, device)
        finally:
            dist.destroy_process_group()


@contextmanager
def _losses_told(rank: int) -> Iterator[None]:
    """Gloo's and nccl's errors as one that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RankLostError(
            f"Rank {rank} has lost another rank: its process or machine is gone, or does not answer. Its own log says "
            "why, if it could. Start the same command on all machines again; it goes on from the last checkpoint.\n"
            f"({str(error).splitlines()[0]:.200})"
        ) from error


def _store(world: int, timeout: timedelta) -> dist.Store:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return dist.TCPStore(address, port, world, is_master=os.environ["RANK"] == "0", timeout=timeout)
    _refuse_restarts_over_a_shared_store(world)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"attempt-{attempt}", dist.TCPStore(address, port, world, is_master=False, timeout=timeout))


def _refuse_restarts_over_a_shared_store(world: int) -> None:
    """Raise ValueError where torchrun would restart workers of several machines that could not find each other then."""
    machines = int(os.environ.get("LOCAL_WORLD_SIZE", world)) < world
    if machines and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        raise ValueError(
            "torchrun --max-restarts on several machines: restarted processes would wait for each other in vain. "
            "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun on each of them, and use --rdzv-backend c10d."
        )
