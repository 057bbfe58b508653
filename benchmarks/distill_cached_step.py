"""A step of distillation with the teacher read from its cache, against one that runs the teacher.

    python benchmarks/distill_cached_step.py --teacher clip-b16 [--captions captions.csv] [--repeats 3] [--device cpu]

Student ViT-T/16, losses task, CKD, FD and ICL with the weights of CLIP-KD, AdamW; a teacher of the table with random
weights, its own image size and tokens. Four steps in turn in one process, the least time of each:

- plain: written here from the formulas: the teacher runs, captions are padded to 77 tokens;
- online: kd-distill's, the teacher runs, captions padded;
- cached: kd-distill's, the teacher's float16 rows from a cache on disk, captions padded;
- trimmed: the same with captions cut to their length, rows of like length together.

The limit of cached over online is the ratio of their floating point operations, counted on torch's meta device.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captions import CONTEXT, token_ids
from clock import least
from figures import Figure, show
from kd_distill import models
from kd_distill.batch import Batch, Rendering, Targets, TeacherInfo
from kd_distill.building import build
from kd_distill.cache import Block, CacheInfo, TeacherCache
from kd_distill.online import LiveTeacher
from kd_distill.precision import Precision
from kd_distill.task import DistillationTask, loss_and_gradients
from kd_distill.teachers import teacher_named
from kd_distill.views import Preprocessing
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

WEIGHTS = {"task": 1.0, "ckd": 1.0, "fd": 2000.0, "icl": 1.0}
STUDENT = "vit-t-16"
SCALE = 100.0
BARS = {"clip-b16": 2.8, "clip-l14": 8.0, "siglip-so400m-384": 25.0}
PLAIN_BARS = {"clip-b16": 3.8}


class Padded(nn.Module):
    """A student whose text tower reads all 77 tokens."""

    def __init__(self, student: models.Clip) -> None:
        super().__init__()
        self.clip, self.logit_scale, self.logit_bias = student, student.logit_scale, None

    def encode_image(self, images: Tensor) -> Tensor:
        return self.clip.encode_image(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.clip.encode_text(tokens)


def student_of(device: str) -> tuple[dict[str, Any], models.Clip, Preprocessing]:
    """Configuration, student and preprocessing."""
    config = models.read_architecture(STUDENT)
    return config, models.build(config, seed=0).to(device).train(), models.preprocessing_of(config)


class Step:
    """kd-distill's step: loss, gradients, update."""

    def __init__(
        self,
        student: models.Clip,
        preprocessing: Preprocessing,
        device: str,
        teacher: TeacherInfo | None = None,
        precision: Precision = "fp32",
    ) -> None:
        self.teacher = teacher or TeacherInfo("teacher-made-up", 512, SCALE)
        self.task = DistillationTask(
            student,
            WEIGHTS,
            student_width=student.visual.output_dim,
            preprocessing=preprocessing,
            teachers=[self.teacher],
            precision=precision,
        ).to(device)
        self.optimizer = torch.optim.AdamW(self.task.parameters(), lr=0.0, fused=True)

    def __call__(self, batch: Batch, student: nn.Module) -> Tensor:
        self.task.student = student
        self.optimizer.zero_grad(set_to_none=True)
        loss, _ = loss_and_gradients(self.task, batch, WEIGHTS)
        self.optimizer.step()
        return loss


class PlainStep:
    """A step as CLIP-KD has it, from its formulas; for teachers of the student's width, which need no heads."""

    def __init__(self, student: models.Clip, teacher: models.Clip, preprocessing: Preprocessing, device: str) -> None:
        self.student, self.teacher, self.preprocessing = student, teacher, preprocessing
        self.icl_log_scale = nn.Parameter(torch.tensor(1 / 0.07, device=device).log())
        self.optimizer = torch.optim.AdamW([*student.parameters(), self.icl_log_scale], lr=0.0, fused=True)

    def __call__(self, images: Tensor, tokens: Tensor) -> Tensor:
        normalised = self.preprocessing.normalise(images)
        with torch.no_grad():
            image_t = F.normalize(self.teacher.encode_image(normalised), dim=-1)
            text_t = F.normalize(self.teacher.encode_text(tokens), dim=-1)
        image = F.normalize(self.student.encode_image(normalised), dim=-1)
        text = F.normalize(self.student.encode_text(tokens), dim=-1)
        labels = torch.arange(len(images), device=images.device)
        own = self.student.logit_scale.exp() * image @ text.T
        given = self.teacher.logit_scale.exp() * image_t @ text_t.T
        task = (F.cross_entropy(own, labels) + F.cross_entropy(own.T, labels)) / 2
        ckd = (_kl(given, own) + _kl(given.T, own.T)) / 2
        fd = F.mse_loss(image, image_t) + F.mse_loss(text, text_t)
        scale = self.icl_log_scale.exp()
        icl = F.cross_entropy(scale * image @ text_t.T, labels) + F.cross_entropy(scale * text @ image_t.T, labels)
        loss = task + ckd + 2000 * fd + icl / 2
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def _kl(given: Tensor, own: Tensor) -> Tensor:
    p, q = F.log_softmax(given, dim=-1), F.log_softmax(own, dim=-1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def fake_cache(n: int, teacher: TeacherInfo, draw: torch.Generator) -> Targets:
    """Made-up targets."""
    image, text = (F.normalize(torch.randn(n, teacher.width, generator=draw), dim=-1) for _ in range(2))
    return Targets(image, text)


def cache_of(folder: Path, targets: Targets, live: LiveTeacher) -> TeacherCache:
    """The targets of a live teacher, on disk."""
    arrays = {"image": targets.image.cpu().numpy(), "text": targets.text.cpu().numpy()}
    info = CacheInfo(
        teacher=live.ref,
        preprocessing=None,
        tokenizer=None,
        precision=live.precision,
        width=live.info.width,
        scale=live.info.scale,
        bias=live.info.bias,
        text=True,
        grid=None,
        patch_width=None,
        patch_layer=None,
        data_digest="benchmark",
        pairs=len(targets.image),
        views=1,
        crop_area=1.0,
        crop_seed=0,
        rows=4096,
    )

    def rows(block: Block) -> dict[str, np.ndarray]:
        kind = "text" if block.view is None else "image"
        return {block.file(kind): arrays[kind]}

    build(folder, info, rows)
    return TeacherCache(folder)


def flops(student: dict[str, Any], teacher: dict[str, Any]) -> tuple[float, float]:
    """Of one pair: the student forward and backward, the teacher forward; losses and update left out."""
    torch.backends.mha.set_fastpath_enabled(False)  # its kernel is not counted
    small, large = models.outline(student).train(), models.outline(teacher).requires_grad_(False)
    with torch.device("meta"):
        images, tokens = _shapes(student)
        with FlopCounterMode(display=False) as counted:
            (small.encode_image(images).sum() + small.encode_text(tokens).sum()).backward()
        images, tokens = _shapes(teacher)
        with FlopCounterMode(display=False) as counted_teacher, torch.no_grad():
            large.encode_image(images)
            large.encode_text(tokens)
    torch.backends.mha.set_fastpath_enabled(True)
    return float(counted.get_total_flops()), float(counted_teacher.get_total_flops())


def _shapes(config: dict[str, Any]) -> tuple[Tensor, Tensor]:
    side, context = models.image_size(config), config["text_cfg"].get("context_length", CONTEXT)
    return torch.zeros(1, 3, side, side), torch.zeros(1, context, dtype=torch.int64)


def arguments() -> argparse.Namespace:
    """Of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="clip-b16")
    parser.add_argument("--captions", type=Path, help="CSV of image and caption; without it lengths are made up")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def report(
    teacher: str, found: dict[str, float], student_flops: float, teacher_flops: float, batch: int
) -> list[Figure]:
    """Rates, limits and ratios."""
    for name, value in found.items():
        print(f"{name:8} {value:8.2f} s")
    limit, ratio = 1 + teacher_flops / student_flops, found["online"] / found["cached"]
    teacher_rate = batch * teacher_flops / (found["online"] - found["cached"]) / 1e9
    student_rate = batch * student_flops / found["cached"] / 1e9
    print(f"student step: {student_flops / 1e9:.2f} GFLOP a pair, at {student_rate:.1f} GFLOP/s")
    print(f"teacher: {teacher_flops / 1e9:.2f} GFLOP a pair, at {teacher_rate:.1f} GFLOP/s")
    cached = Figure(
        f"step with cached teacher against online, {teacher}",
        ratio,
        at_least=BARS.get(teacher),
        limit=limit,
        limit_of="floating point operations",
        seen=f"{found['online']:.2f} s against {found['cached']:.2f} s",
    )
    if "plain" not in found:
        return [cached]
    whole = Figure(
        f"the same, captions cut, against a plain CLIP-KD step, {teacher}",
        found["plain"] / found["trimmed"],
        at_least=PLAIN_BARS.get(teacher),
        seen=f"{found['plain']:.2f} s against {found['trimmed']:.2f} s",
    )
    return [cached, whole]


def main() -> None:
    args = arguments()
    if args.device == "cpu":
        torch.set_num_threads(1)
    draw, kind = torch.Generator().manual_seed(0), teacher_named(args.teacher)
    config, student, preprocessing = student_of(args.device)
    tokens, said = token_ids(args.batch, args.captions, draw)
    context, side = kind.config["text_cfg"].get("context_length", CONTEXT), kind.preprocessing.size
    model = models.build(kind.config, seed=1)
    ref = {"schema": "kd-ref/1", "kind": "teacher", "name": "teacher-random", "sha256": "0" * 64}
    live = LiveTeacher(model, kind.config, (kind.preprocessing, None), ref, device=torch.device(args.device))
    images = torch.randint(0, 256, (args.batch, 3, 224, 224), dtype=torch.uint8, generator=draw).to(args.device)
    tokens = tokens.to(args.device)
    seen = Rendering(images, tokens)
    if side != 224 or context != CONTEXT:  # other pixels and ids: they cost what the right ones would
        other = torch.randint(0, 256, (args.batch, 3, side, side), dtype=torch.uint8, generator=draw)
        seen = Rendering(other, torch.randint(2, 30000, (args.batch, context), generator=draw).to(args.device))

    def live_targets() -> Targets:
        with torch.inference_mode():
            text = F.normalize(model.encode_text(seen.tokens), dim=-1)
        return Targets(live.images(seen.images)[0].clone(), text.clone())

    counted = flops(config, kind.config)
    padded, step = Padded(student), Step(student, preprocessing, args.device, live.info)
    plain = PlainStep(student, model, preprocessing, args.device)
    print(f"load average {os.getloadavg()[0]:.1f}; {args.teacher}, batch {args.batch}; captions: {said}")
    with tempfile.TemporaryDirectory() as folder:
        expected = live_targets()
        cache, rows = cache_of(Path(folder) / "cache", expected, live), np.arange(args.batch)

        def cached_targets() -> Targets:
            found = cache.rows(rows, 0)
            return Targets(found.image.to(args.device), found.text.to(args.device))

        sides = {
            "online": lambda: step(Batch(images, tokens, (live_targets(),)), padded),
            "cached": lambda: step(Batch(images, tokens, (cached_targets(),)), padded),
            "trimmed": lambda: step(Batch(images, tokens, (cached_targets(),)), student),
        }
        if live.info.width == student.visual.output_dim:
            sides = {"plain": lambda: plain(images, tokens)} | sides
            loss = sides["plain"]().item()
        else:
            loss = step(Batch(images, tokens, (expected,)), padded).item()
        again = sides["trimmed"]().item()
        found = least(sides, args.repeats, args.device)
    print(f"loss with live teacher {loss:.6f}, with cached rows {again:.6f}")
    apart = Figure(f"loss with cached rows, {args.teacher}: relative difference", abs(again - loss) / loss, "")
    show(*report(args.teacher, found, *counted, args.batch), replace(apart, at_most=2**-11))  # of float16


if __name__ == "__main__":
    main()
