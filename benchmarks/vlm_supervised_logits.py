"""Logits only where a label is supervised, against all of them: seconds a step and peak memory.

    python benchmarks/vlm_supervised_logits.py [--width 384] [--layers 4] [--batch 2] [--device cpu]

One batch of Qwen2's vocabulary: 196 visual and 220 text tokens a sample, 110 of them supervised, features given,
forward and backward. Both sides in turn in one process, the least time; peak memory in a process of its own for each
side. The limit is what the products of body and head cost; it is also given for Qwen2-0.5B's 24 layers.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from clock import least
from figures import Figure, show
from kd_vlm.assembly import Vlm
from kd_vlm.batch import Batch, collate, image_inputs, loss_sum, supervised_logits
from vlm_models import PAD_ID, VOCABULARY, body_parameters, sample, small_vlm

TEXT, SUPERVISED = 220, 110


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", choices=["all", "supervised"], help="run one side once and print its peak memory")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    vlm = small_vlm(args.width, args.layers)
    vlm.model.to(args.device)
    rng = np.random.default_rng(0)
    batch = collate([sample(TEXT, SUPERVISED, 1, vlm.tokens_per_image, rng) for _ in range(args.batch)], PAD_ID)
    batch = batch.to(args.device)
    features = torch.randn(args.batch, vlm.tokens_per_image, 192, generator=torch.Generator().manual_seed(0))
    features = features.to(args.device)
    sides = {"all": lambda: every(vlm, batch, features), "supervised": lambda: kept(vlm, batch, features)}
    if args.side:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = memory(args.device, peak=False)
        sides[args.side]()
        print(memory(args.device, peak=True), memory(args.device, peak=True) - before)
        return
    same(vlm, sides)
    peaks = {side: measured(side) for side in sides}
    print(f"load average {os.getloadavg()[0]:.1f}; batch {args.batch} of {batch.ids.shape[1]} tokens")
    seconds = least(sides, args.repeats, args.device)
    for side, value in seconds.items():
        whole, step = peaks[side]
        print(
            f"{side:10} {value:7.3f} s a step, peak {whole / 2**30:.2f} GiB, {step / 2**30:.2f} GiB of it in the step"
        )
    share = SUPERVISED / (TEXT + vlm.tokens_per_image)
    limits = {
        name: (body + head) / (body + share * head)
        for name, body, head in (
            ("here", body_parameters(vlm), args.width * VOCABULARY),
            ("Qwen2-0.5B", 357_897_088, 896 * VOCABULARY),
        )
    }
    print(f"limit by products with Qwen2-0.5B's 24 layers: {limits['Qwen2-0.5B']:.2f}x")
    show(*compared(seconds, peaks, limits["here"]))


def compared(seconds: dict[str, float], peaks: dict[str, tuple[int, int]], limit: float) -> list[Figure]:
    """The figures of both sides."""
    gigabytes = {side: [size / 2**30 for size in peak] for side, peak in peaks.items()}
    return [
        Figure(
            "logits where supervised against all of them, a step",
            seconds["all"] / seconds["supervised"],
            at_least=1.8,
            limit=limit,
            limit_of="products of body and head",
            seen=f"{seconds['all']:.2f} s against {seconds['supervised']:.2f} s",
        ),
        Figure(
            "the same, peak memory of the process",
            peaks["all"][0] / peaks["supervised"][0],
            at_least=1,
            seen=f"{gigabytes['all'][0]:.2f} GiB against {gigabytes['supervised'][0]:.2f}",
        ),
        Figure(
            "the same, memory of the step alone",
            peaks["all"][1] / peaks["supervised"][1],
            at_least=1,
            seen=f"{gigabytes['all'][1]:.2f} GiB against {gigabytes['supervised'][1]:.2f}",
        ),
    ]


def every(vlm: Vlm, batch: Batch, features: torch.Tensor) -> float:
    """The plain way: logits of all positions, the stock loss."""
    vlm.model.zero_grad(set_to_none=True)
    loss = vlm.model(
        input_ids=batch.ids, labels=batch.labels, use_cache=False, **image_inputs(vlm, features=features)
    ).loss
    loss.backward()
    return loss.item()


def kept(vlm: Vlm, batch: Batch, features: torch.Tensor) -> float:
    vlm.model.zero_grad(set_to_none=True)
    logits, targets = supervised_logits(vlm, batch, features=features)
    loss = loss_sum(logits, targets) / len(targets)
    loss.backward()
    return loss.item()


def same(vlm: Vlm, sides: dict[str, Callable[[], float]]) -> None:
    """Loss and gradients of both sides are equal; also warms up."""
    losses, gradients = [], []
    for run in sides.values():
        losses.append(run())
        gradients.append({n: p.grad.clone() for n, p in vlm.model.named_parameters() if p.grad is not None})
    apart = max((gradients[0][n] - gradients[1][n]).abs().max().item() for n in gradients[0])
    print(f"loss {losses[0]:.6f} and {losses[1]:.6f}; largest difference of a gradient {apart:.1e}")
    if abs(losses[0] - losses[1]) > 1e-4:
        raise SystemExit("The two sides give different losses.")


def memory(device: str, *, peak: bool) -> int:
    """Memory of this process (or of the GPU) in bytes, now or at most since the start of the step."""
    if device == "cpu":
        lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
    return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()


def measured(side: str) -> tuple[int, int]:
    """Peak memory of one step in a process of its own: in all, and above what the model took."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    whole, step = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(whole), int(step)


if __name__ == "__main__":
    main()
