"""One of two processes that compute the loss of one global batch: `two_ranks.py RANK STORE OUT`."""

import sys

import torch
import torch.distributed as dist
from kd_distill.task import loss_and_gradients
from safetensors.torch import save_file
from tiny import CASES, PAIRS, batch_of, gradients, task_of, weights_of


def main(rank: int, store: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    half = PAIRS // 2
    batch = batch_of(rank * half, (rank + 1) * half)
    found, gathered, gather = {}, [], dist.all_gather_into_tensor
    dist.all_gather_into_tensor = lambda *args: gathered.append(1) or gather(*args)
    for number, (terms, options) in enumerate(CASES):
        options = dict(options)
        chunk = options.pop("chunk", None)
        task = task_of(terms, **options)
        gathered.clear()
        _, values = loss_and_gradients(task, batch, weights_of(terms), step=3, chunk=chunk)
        means = {f"term.{name}": value for name, value in values.items()}
        means |= {f"grad.{name}": grad for name, grad in gradients(task).items()}
        for name, x in means.items():
            dist.all_reduce(x)
            found[f"{number}.{name}"] = x / 2
        found[f"collectives.{number}"] = torch.tensor(len(gathered))
        found |= {f"{number}.buffer.{name}": x for name, x in task.named_buffers() if "statistics" in name}
    if rank == 0:
        save_file({name: x.contiguous().clone() for name, x in found.items()}, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
