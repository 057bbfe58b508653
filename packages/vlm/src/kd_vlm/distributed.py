"""Processes that train one model together (torchrun), and the little that they tell each other."""

import atexit
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

LAUNCHED = "ACCELERATE_USE_CPU"  # which accelerate launch sets, and nothing else
TIMEOUT = timedelta(minutes=10)
CPU = torch.device("cpu")
LOOK_SECONDS = 0.1  # between two looks at whether another rank is done
DONE, FAILED = "done", "failed"
_turns = itertools.count()  # every rank takes the same ones in the same order


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
        """Whether this process writes what there is one of: manifests, the journal, the model."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised on any rank."""
        return flag if self.world == 1 else self.sum(float(flag)) > 0

    def sum(self, value: float) -> float:
        """The sum over ranks, in float64; not a number on all of them if it is none on one."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def agreed(self, value: int) -> int:
        """The first rank's value."""
        if self.world == 1:
            return value
        told = torch.tensor(value, device=self.device)
        dist.broadcast(told, src=0)
        return int(told)

    def wait(self) -> None:
        """Return when all ranks have come here."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first rank does what is inside, then the others do; all leave when all are done.

        It may take however long: the others look for a word in the processes' common store. A collective would end by
        its timeout. A process that is killed is noticed by torchrun, which ends the others.

        Raises:
            RankLostError: If another rank failed inside.
        """
        if self.world == 1:
            yield
            return
        turn, store = next(_turns), dist.distributed_c10d._get_default_store()
        keys = [f"kd-turn-{turn}/{rank}" for rank in range(self.world)]
        if not self.first:
            _look_for(store, keys[:1])
        try:
            yield
        except BaseException:
            with suppress(RuntimeError):
                store.set(keys[self.rank], FAILED)
            raise
        store.set(keys[self.rank], DONE)
        _look_for(store, keys)


def _look_for(store: dist.Store, keys: Sequence[str]) -> None:
    for rank, key in enumerate(keys):
        while not store.check([key]):
            time.sleep(LOOK_SECONDS)
        if store.get(key) == FAILED.encode():
            raise RankLostError(
                f"Rank {rank} has failed at what the other ranks wait for; its own log says why. Start the same "
                "command on all machines again when that is mended."
            )


@contextmanager
def joined(*, deepspeed: bool = False, timeout: timedelta = TIMEOUT) -> Iterator[Ranks]:
    """The ranks that torchrun started (gloo on CPU, nccl on GPU), or this process alone.

    Args:
        deepspeed: Whether DeepSpeed is to use the same process group; one process alone does without.
        timeout: How long one rank waits for the others. One that dies is noticed at once where its machine can still
            say so; of a machine that is cut off nothing is heard, and only this ends the waiting.

    Raises:
        RankLostError: If another rank dies or does not answer.
        ValueError: If DeepSpeed is asked for and cannot be had, or several machines may restart workers over a store
            that torchrun shares with them.
    """
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, which accelerate imports, need not guess and warn
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else CPU
    if cuda:
        torch.cuda.set_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        if deepspeed and LAUNCHED in os.environ:
            raise ValueError(
                "accelerate launch started one process only, without DeepSpeed (its --cpu does so in silence). "
                "Start with torchrun --nproc-per-node N instead."
            )
        yield Ranks(device=device)
        return
    with _losses_told(int(os.environ.get("RANK", "0"))):
        backend = "nccl" if cuda else "gloo"
        if not dist.is_initialized():
            _refuse_restarts_over_a_shared_store(world)
            dist.init_process_group(backend, timeout=timeout)
            atexit.register(dist.destroy_process_group)  # one group for all runs of a process
        if deepspeed:
            from kd_vlm.zero import join

            join(backend)
        yield Ranks(dist.get_rank(), world, device)


def _refuse_restarts_over_a_shared_store(world: int) -> None:
    """Raise ValueError where torchrun would restart workers of several machines that could not find each other then."""
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    machines = int(os.environ.get("LOCAL_WORLD_SIZE", world)) < world
    if shared and machines and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        raise ValueError(
            "torchrun --max-restarts on several machines: restarted processes would wait for each other in vain. "
            "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun on each of them, and use --rdzv-backend c10d."
        )


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
