"""Building a teacher's cache against the teacher alone: samples per second, as a share of the teacher's own.

    python benchmarks/distill_cache_build.py [--teacher clip-b16] [--pairs 64] [--repeats 2] [--device cpu]

The whole reads JPEGs of 500 x 375 from a shard, decodes, crops, resizes, tokenises, runs the teacher, writes, fsyncs
and hashes files; the teacher alone has its pixels and token ids ready. Both in turn in one process, the least time of
each. On a CPU time is that of all threads of the process together, so that decoding in a second thread counts; on a GPU
elapsed.
"""

import argparse
import io
import os
import shutil
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from clock import seconds
from figures import Figure, show
from kd_distill import models
from kd_distill.config import Data
from kd_distill.formats import open_pairs
from kd_distill.online import BATCH, LiveTeacher
from kd_distill.pairs import Pairs
from kd_distill.teachers import teacher_named
from kd_distill.teaching import CROP_SEED, cache_folder, make_cache
from kd_distill.tracking import Model, digest
from PIL import Image

WORDS = ("a", "two", "red", "blue", "small", "dog", "cat", "house", "street", "sofa", "asleep", "near", "under", "with")


def write_pairs(folder: Path, n: int) -> None:
    """`n` photographs of noise that was smoothed, and captions of 6 to 20 words."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for i in range(n):
            small = Image.fromarray(draw.integers(0, 256, (94, 125, 3), dtype=np.uint8))
            picture = io.BytesIO()
            small.resize((500, 375), Image.Resampling.BICUBIC).save(picture, "JPEG", quality=90)
            caption = " ".join(draw.choice(WORDS, size=draw.integers(6, 21)))
            for suffix, content in (("jpg", picture.getvalue()), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def spent(run, device: str) -> float:  # noqa: ANN001
    """Seconds of all threads on a CPU, elapsed on a GPU."""
    if device != "cpu":
        return seconds(run, device)
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="clip-b16")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    kind = teacher_named(args.teacher)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_pairs(root / "pairs", args.pairs)
        weights = root / "teacher-random"
        weights.mkdir()
        models.save(weights, models.build(kind.config, seed=0), kind.config, kind.preprocessing)
        teacher = Model(weights, "teacher", weights.name, digest(weights))
        data = Data(train=root / "pairs", val=root / "pairs", views=1, crop_area=0.9, caches=root / "caches")
        live = LiveTeacher.load(teacher, device=torch.device(args.device))
        pairs = Pairs(open_pairs(data.train, data.index), *live.look, seed=CROP_SEED, views=1, crop_area=0.9)
        ready = list(pairs.in_order(BATCH, 0))
        load = min(spent(lambda: LiveTeacher.load(teacher, device=live.device), args.device) for _ in range(2))

        def alone() -> None:
            for batch in ready:
                live.images(batch.images)[0].cpu()
                live.texts(batch.tokens).cpu()

        def whole() -> None:
            shutil.rmtree(cache_folder(data, teacher.name), ignore_errors=True)
            make_cache(data, teacher, lambda what, done, of: None)

        best = {"teacher alone": float("inf"), "whole": float("inf")}
        for _ in range(args.repeats):
            best["teacher alone"] = min(best["teacher alone"], spent(alone, args.device))
            best["whole"] = min(best["whole"], spent(whole, args.device) - load)
        pixels = spent(lambda: list(pairs.in_order(BATCH, 0)), args.device)
    print(f"load average {os.getloadavg()[0]:.1f}; {args.teacher}, {args.pairs} pairs")
    print(f"the model is loaded once, {load:.1f} s, which is left out")
    for what, value in best.items():
        print(f"{what:14} {args.pairs / value:8.2f} samples/s")
    print(f"pixels and ids alone (images kept in memory) {args.pairs / pixels:.0f} samples/s")
    show(
        Figure(
            f"building a cache against the teacher alone, {args.teacher}",
            100 * best["teacher alone"] / best["whole"],
            "%",
            at_least=85,
            limit=100,
            limit_of="the teacher's own samples/s",
            seen=f"{args.pairs / best['whole']:.2f} of {args.pairs / best['teacher alone']:.2f} samples/s",
        )
    )


if __name__ == "__main__":
    main()
