"""A student, two teachers' targets and a batch that every loss term can be computed on, in float64."""

import torch
import torch.nn.functional as F
from kd_distill.batch import Batch, Targets, TeacherInfo
from kd_distill.losses import TERMS
from kd_distill.losses.terms import Options
from kd_distill.models import build, preprocessing_of
from kd_distill.task import DistillationTask
from kd_distill.towers import patch_grid
from torch import nn

ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 1, "layers": 1},
}
TEACHERS = (
    TeacherInfo("teacher-same", 16, scale=12.0, bias=-3.0, grid=(4, 4), patch_width=12, patch_layer="penultimate"),
    TeacherInfo("teacher-wide", 24, scale=9.0, bias=-2.0, grid=(6, 6), patch_width=20, patch_layer="penultimate"),
)
PAIRS = 8
CASES = [((name,), {}) for name in TERMS] + [
    (tuple(TERMS), {}),
    (tuple(TERMS), {"block": 3}),  # not a divisor of the rows
    (tuple(TERMS), {"chunk": 3}),
    (("icl", "cross_kd", "afd"), {"icl_exp": False}),
    (("fd", "mfd", "mse"), {"fd_reduction": "mean_n"}),
    (("mse",), {"mse_normalise": True}),
]
LARGE = {"gd": 10.0}  # so that its share of a sum of all terms is not lost


class Embeddings(nn.Module):
    """A student whose embeddings are parameters."""

    def __init__(self, image: torch.Tensor, text: torch.Tensor) -> None:
        super().__init__()
        self.image, self.text = nn.Parameter(image), nn.Parameter(text)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07, dtype=torch.float64).log())

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return self.image

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.text


def task_of(terms=tuple(TERMS), *, block=None, icl_exp=True, teachers=TEACHERS, **options) -> DistillationTask:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251  the heads' initial weights
        student = build(ARCHITECTURE, 0)
        return DistillationTask(
            student,
            terms,
            student_width=16,
            preprocessing=preprocessing_of(ARCHITECTURE),
            teachers=teachers,
            student_grid=patch_grid(ARCHITECTURE),
            options=Options(block=block, **options),
            icl_exp=icl_exp,
            seed=5,
        ).double()


def weights_of(terms) -> dict[str, float]:
    return {name: LARGE.get(name, 1.0) for name in terms}


def batch_of(start: int = 0, stop: int = PAIRS) -> Batch:
    """Pairs `start` to `stop` of a global batch of `PAIRS`."""
    rng = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    images = torch.randint(0, 256, (PAIRS, 3, 16, 16), generator=rng, dtype=torch.uint8)
    tokens = torch.randint(1, 49, (PAIRS, 8), generator=rng)
    targets = []
    for teacher in TEACHERS:
        image, text = (F.normalize(normal(PAIRS, teacher.width), dim=-1) for _ in range(2))
        patches = normal(PAIRS, teacher.grid[0] * teacher.grid[1], teacher.patch_width) + 1
        targets.append(Targets(image[start:stop], text[start:stop], patches[start:stop]))
    return Batch(images[start:stop], tokens[start:stop], tuple(targets))


def gradients(task: DistillationTask) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
