"""How long a checkpoint of the ViT-T/16 student holds up the training, against what the disk and one sha256 take.

    python benchmarks/distill_checkpoint.py [--folder DIR] [--repeats 5] [--device cuda]

A checkpoint is parameters and two moments in float32, written, synced, hashed, renamed. Wall time, because it waits for
the disk: both sides in turn, the least of each.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from figures import Figure, show
from kd_distill.checkpoint import Checkpoints
from kd_distill.config import Recipe
from kd_distill.distributed import Ranks
from kd_distill.models import build
from kd_distill.optim import build_optimizer
from kd_distill.state import TrainingState

VIT_T = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 192, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 384, "heads": 6, "layers": 12},
}


def wall(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def write_and_sync(path: Path, data: bytes) -> None:
    """What the disk takes."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="On the disk to measure; default: a temporary one.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ranks = Ranks(device=torch.device(arguments.device))
    model = build(VIT_T, 0).to(ranks.device)
    optimizer = build_optimizer(model, lr=1e-3, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = TrainingState(model, optimizer, torch.amp.GradScaler(ranks.device.type, enabled=False))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        checkpoints = Checkpoints(folder / "checkpoints")
        data = os.urandom(sum(t.nbytes for t in state.tensors(ranks).values()))
        ours, disk, digest = [], [], []
        for step in range(arguments.repeats):
            ours.append(wall(lambda at=step: checkpoints.save(at, state.tensors(ranks), state.values(ranks))))
            disk.append(wall(lambda: write_and_sync(folder / "raw", data)))
            digest.append(wall(lambda: hashlib.sha256(data).hexdigest()))
        read = min(wall(checkpoints.newest) for _ in range(3))
    rhythm = Recipe.model_fields["save_every_seconds"].default
    bound = min(disk) + min(digest)
    print(f"load average {os.getloadavg()[0]:.1f}; {len(data) / 1e6:.0f} MB a checkpoint")
    print(f"save {min(ours):.2f} s (largest {max(ours):.2f}); read and verify {read:.2f} s")
    print(f"bound: write and sync {min(disk):.2f} s + sha256 {min(digest):.2f} s = {bound:.2f} s")
    show(
        Figure(
            f"time held up by one checkpoint every {rhythm:.0f} s",
            100 * min(ours) / rhythm,
            "%",
            at_most=1,
            limit=100 * bound / rhythm,
            limit_of="write, sync and sha256 of the same bytes",
            seen=f"{min(ours):.2f} s for {len(data) / 1e6:.0f} MB",
        )
    )


if __name__ == "__main__":
    main()
