"""A whole step of distillation at real sizes: achieved TFLOP/s with the teacher online and with its cache.

    python benchmarks/gpu_distill_step.py [--teacher siglip-so400m-384 ...] [--batch 256 1024] [--device cuda]

Student ViT-T/16, losses task, CKD, FD and ICL, AdamW, towers in bf16; each teacher of the study with random weights,
its own image size and tokens. Online the teacher runs; cached its float16 rows are read from a cache on disk. Pixels
and token ids lie on the device, captions fill their context. Operations are counted on torch's meta device, those of
losses and update left out. Student and teacher may be paths of open_clip JSONs, for a try at small sizes.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import least
from distill_cached_step import CONTEXT, Step, cache_of, flops
from figures import Figure, show
from gpu import achieved, fastest_product, forget_peak
from kd_distill import models
from kd_distill.batch import Batch, Rendering, Targets
from kd_distill.online import LiveTeacher
from kd_distill.teachers import TEACHERS, teacher_named
from torch import Tensor


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", nargs="*", default=list(TEACHERS))
    parser.add_argument("--student", default="vit-t-16")
    parser.add_argument("--batch", type=int, nargs="*", default=[256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--product", type=int, default=8192, help="side of the matrices of the large product")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args(arguments)
    product = fastest_product(args.device, args.precision, args.product)
    print(f"a product of {args.product} x {args.product} in {args.precision}: {product:.3g} TFLOP/s")
    found: list[Figure] = []
    for name in args.teacher:
        for batch in args.batch:
            try:
                found += steps(name, batch, product, args)
            except torch.OutOfMemoryError:
                print(f"{name}, batch {batch}: does not fit into this device")
    show(*found)


def live_teacher(name: str, device: str, precision: Any) -> tuple[LiveTeacher, dict[str, Any]]:
    """A teacher with random weights, and its configuration."""
    if name in TEACHERS:
        config, look = dict(teacher_named(name).config), teacher_named(name).preprocessing
    else:
        config = models.read_architecture(name)
        look = models.preprocessing_of(config)
    ref = {"schema": "kd-ref/1", "kind": "teacher", "name": "teacher-random", "sha256": "0" * 64}
    model = models.build(config, seed=1)
    return LiveTeacher(model, config, (look, None), ref, device=torch.device(device), precision=precision), config


def inputs(config: dict[str, Any], batch: int, device: str, seed: int) -> tuple[Tensor, Tensor]:
    """Pixels and token ids as a model wants them; captions end with their context, so that none is cut."""
    draw, side = torch.Generator().manual_seed(seed), models.image_size(config)
    end, context = config["text_cfg"]["vocab_size"] - 1, config["text_cfg"].get("context_length", CONTEXT)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=draw)
    tokens = torch.randint(1, end, (batch, context), generator=draw)
    tokens[:, -1] = end
    return images.to(device), tokens.to(device)


def steps(name: str, batch: int, product: float, args: argparse.Namespace) -> list[Figure]:
    """The figures of one teacher at one batch size."""
    device = args.device
    live, teacher = live_teacher(name, device, args.precision)
    config = models.read_architecture(args.student)
    student = models.build(config, seed=0).to(device).train()
    images, tokens = inputs(config, batch, device, 0)
    seen = Rendering(*inputs(teacher, batch, device, 1))
    step = Step(student, models.preprocessing_of(config), device, live.info, args.precision)
    own, teachers = (batch * n for n in flops(config, teacher))
    forget_peak(device)
    with tempfile.TemporaryDirectory() as folder:
        cache, rows = cache_of(Path(folder) / "cache", live.targets(seen), live), np.arange(batch)

        def cached() -> Targets:
            read = cache.rows(rows, 0)
            return Targets(read.image.to(device), read.text.to(device))

        sides = {
            "online": lambda: step(Batch(images, tokens, (live.targets(seen),)), student),
            "cached": lambda: step(Batch(images, tokens, (cached(),)), student),
        }
        least(sides, 2, device)  # warms up
        seconds = least(sides, args.repeats, device)
    work, what = {"online": own + teachers, "cached": own}, f"{Path(name).stem}, batch {batch}"
    rates = []
    for side, spent in seconds.items():
        said = f"{batch / spent:.0f} pairs/s"
        rates.append(achieved(f"distillation step, {what}, {side}", work[side], spent, args, product, said))
    ratio = seconds["online"] / seconds["cached"]
    limit = work["online"] / work["cached"]
    return [*rates, Figure(f"cached over online, {what}", ratio, limit=limit, limit_of="floating point operations")]


if __name__ == "__main__":
    main()
