"""The loss terms against what the authors' code gives, in float64; 1e-7 covers own scales, kept in float32."""

import json
from pathlib import Path

import pytest
import torch
from kd_distill.batch import Batch, Targets, TeacherInfo
from kd_distill.losses.terms import Options
from kd_distill.task import DistillationTask, loss_and_gradients
from kd_distill.views import Preprocessing
from torch import nn

from packages.distill.tests.reference.hash_inputs import embeddings, head, u
from packages.distill.tests.reference.tiny import Embeddings

VECTORS = json.loads((Path(__file__).parent / "clipkd_losses.json").read_text())
CASES, MOBILECLIP = VECTORS["cases"], VECTORS["mobileclip"]
VALUES = [(dt, name, value) for dt, case in CASES.items() for name, value in case["values"].items()]
NORMS = [(dt, name, norms) for dt, case in CASES.items() for name, norms in case["grad_norms"].items()]


def set_head(layer: nn.Module, stream: int) -> None:
    if isinstance(layer, nn.Linear):
        layer.weight.data, layer.bias.data = head(layer.in_features, layer.out_features, stream)


def task_of(
    names: tuple[str, ...], widths: list[int], scales: list[float], *, icl_exp: bool = False, block: int | None = None
) -> tuple[DistillationTask, Batch]:
    cases = [embeddings(8, 16, dt) for dt in widths]
    student = Embeddings(cases[0]["image_student"], cases[0]["text_student"])
    teachers = [TeacherInfo(f"teacher-{dt}", dt, scale=s) for dt, s in zip(widths, scales, strict=True)]
    task = DistillationTask(
        student,
        names,
        student_width=16,
        preprocessing=Preprocessing(1, (0.5,) * 3, (0.5,) * 3),
        teachers=teachers,
        icl_exp=icl_exp,
        options=Options(block=block),
    ).double()
    for heads in task.heads.values():
        for layer, stream in ((heads.image, 11), (heads.text, 12)):
            set_head(layer, stream)
        if "afd" in names:
            set_head(heads.fuse_image, 13)
            set_head(heads.fuse_text, 14)
    targets = tuple(Targets(z["image_teacher"], z["text_teacher"]) for z in cases)
    return task, Batch(torch.zeros(8, 3, 1, 1, dtype=torch.uint8), torch.zeros(8, 1, dtype=torch.long), targets)


def value_of(name: str, dt: str, **options: bool) -> float:
    task, batch = task_of((name,), [int(dt)], [12.0], **options)
    return task(batch)[name].item()


def test_hash_inputs_are_the_published_ones():
    expected = torch.tensor([0.022191491909325, -0.041847596410662, 0.040868929121643, 0.125170793384314])
    torch.testing.assert_close(u(8, 16, 1)[0, :4], expected.double(), atol=1e-7, rtol=0)


@pytest.mark.parametrize(("dt", "name", "expected"), VALUES, ids=lambda x: str(x))
def test_value_equals_the_authors(dt, name, expected):
    assert value_of(name, dt) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize(("dt", "name", "expected"), NORMS, ids=lambda x: str(x))
def test_gradient_norms_equal_the_authors(dt, name, expected, block):
    task, batch = task_of((name,), [int(dt)], [12.0], block=block)
    loss_and_gradients(task, batch, {name: 1.0})
    norms = [task.student.image.grad.norm().item(), task.student.text.grad.norm().item()]
    assert norms == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("dt", ["16", "24"])
def test_icl_with_an_exponentiated_scale_equals_the_formula(dt):
    assert value_of("icl", dt, icl_exp=True) == pytest.approx(CASES[dt]["icl_with_exp"], rel=1e-7)


@pytest.mark.parametrize("dt", ["16", "24"])
def test_ckd_is_open_clips_distillation_loss_less_the_teachers_entropy(dt):
    case = CASES[dt]
    assert value_of("ckd", dt) == pytest.approx(case["values"]["soft_ce"] - case["teacher_entropy"], rel=1e-9)


def test_the_ensemble_of_two_teachers_equals_mobileclips():
    task, batch = task_of(("task", "ensemble"), MOBILECLIP["teacher_widths"], MOBILECLIP["teacher_scales"])
    values = {name: value.item() for name, value in task(batch).items()}
    assert values == pytest.approx({name: MOBILECLIP[name] for name in ("task", "ensemble")}, rel=1e-12)


@pytest.mark.parametrize("name", ["ckd", "soft_ce", "icl", "cross_kd", "fd", "gd"])
def test_two_teachers_terms_are_summed(name):
    task, batch = task_of((name,), [16, 24], [12.0, 12.0])
    expected = sum(CASES[dt]["values"][name] for dt in ("16", "24"))
    assert task(batch)[name].item() == pytest.approx(expected, rel=1e-7)


def test_the_total_of_clip_kd_equals_the_authors():
    task, batch = task_of(("task", "ckd", "icl", "fd"), [16], [12.0])
    loss, _ = loss_and_gradients(task, batch, {"task": 1, "ckd": 1, "icl": 1, "fd": 2000})
    assert loss.item() == pytest.approx(331.261666526, rel=1e-9)
