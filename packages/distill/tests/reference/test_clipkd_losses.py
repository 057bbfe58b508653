"""The loss terms against what the authors' code gives, in float64; 1e-7 covers ICL's scale, kept in float32."""

import json
from pathlib import Path

import pytest
import torch
from kd_distill.batch import Batch, Targets, TeacherInfo
from kd_distill.task import DistillationTask
from kd_distill.views import Preprocessing
from torch import nn

from .hash_inputs import embeddings, head, u

CASES = json.loads((Path(__file__).parent / "clipkd_losses.json").read_text())["cases"]
TERMS = ("task", "ckd", "fd", "icl")


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


def terms_of(dt: int, names: tuple[str, ...], *, icl_exp: bool = False) -> tuple[dict, Embeddings]:
    z = embeddings(8, 16, dt)
    student = Embeddings(z["image_student"], z["text_student"])
    teachers = [TeacherInfo("teacher-any", dt, scale=12.0)]
    view = Preprocessing(1, (0.5,) * 3, (0.5,) * 3)
    task = DistillationTask(
        student, names, student_width=16, preprocessing=view, teachers=teachers, icl_exp=icl_exp
    ).double()
    if dt != 16 and {"fd", "icl"} & set(names):
        for layer, stream in ((task.image_head, 11), (task.text_head, 12)):
            weight, bias = head(16, dt, stream)
            layer.weight.data, layer.bias.data = weight, bias
    targets = Targets(z["image_teacher"], z["text_teacher"])
    batch = Batch(torch.zeros(8, 3, 1, 1, dtype=torch.uint8), torch.zeros(8, 1, dtype=torch.long), (targets,))
    return task(batch), student


def test_hash_inputs_are_the_published_ones():
    expected = torch.tensor([0.022191491909325, -0.041847596410662, 0.040868929121643, 0.125170793384314])
    torch.testing.assert_close(u(8, 16, 1)[0, :4], expected.double(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("dt", [16, 24])
@pytest.mark.parametrize("name", TERMS)
def test_value_equals_the_authors(dt, name):
    values, _ = terms_of(dt, (name,))
    assert values[name].item() == pytest.approx(CASES[str(dt)]["values"][name], rel=1e-7)


@pytest.mark.parametrize("name", TERMS)
def test_gradient_norms_equal_the_authors(name):
    values, student = terms_of(16, (name,))
    values[name].backward()
    norms = [student.image.grad.norm().item(), student.text.grad.norm().item()]
    assert norms == pytest.approx(CASES["16"]["grad_norms"][name], rel=1e-7)


@pytest.mark.parametrize("dt", [16, 24])
def test_icl_with_an_exponentiated_scale_equals_the_formula(dt):
    values, _ = terms_of(dt, ("icl",), icl_exp=True)
    assert values["icl"].item() == pytest.approx(CASES[str(dt)]["icl_with_exp"], rel=1e-7)


def test_ckd_is_open_clips_distillation_loss_less_the_teachers_entropy():
    values, _ = terms_of(16, ("ckd",))
    assert values["ckd"].item() == pytest.approx(3.52396575238299 - 0.707316517864, rel=1e-9)
