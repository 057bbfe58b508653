import pytest
import torch
from kd_distill.batch import Batch, Targets, TeacherInfo
from kd_distill.losses import feature_distillation
from kd_distill.models import build, preprocessing_of
from kd_distill.task import DistillationTask

ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 1, "layers": 1},
}


def task_of(*terms: str, teacher_width: int = 16) -> DistillationTask:
    teachers = [TeacherInfo("teacher-any", teacher_width, scale=1.0)]
    view = preprocessing_of(ARCHITECTURE)
    return DistillationTask(build(ARCHITECTURE, 0), terms, student_width=16, preprocessing=view, teachers=teachers)


@pytest.fixture
def batch() -> Batch:
    rng = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 49, (4, 8), generator=rng)
    unit = [torch.nn.functional.normalize(torch.randn(4, 16, generator=rng), dim=-1) for _ in range(2)]
    images = torch.randint(0, 256, (4, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return Batch(images, tokens, (Targets(*unit),))


def images_only(batch: Batch) -> Batch:
    return Batch(batch.images, batch.tokens, (Targets(batch.teachers[0].image),))


def test_fd_image_is_the_image_half_of_fd(batch):
    task = task_of("fd", "fd_image")
    values = task(batch)
    text = torch.nn.functional.normalize(task.student.encode_text(batch.tokens), dim=-1)
    text_half = feature_distillation(text, batch.teachers[0].text)
    torch.testing.assert_close(values["fd_image"], values["fd"] - text_half)


def test_fd_image_needs_no_captions_of_the_teacher(batch):
    assert task_of("fd_image")(images_only(batch)).keys() == {"fd_image"}


def test_fd_image_with_the_task_loss_trains_both_towers(batch):
    task = task_of("task", "fd_image")
    values = task(images_only(batch))
    assert values.keys() == {"task", "fd_image"}
    sum(values.values()).backward()
    assert task.student.token_embedding.weight.grad is not None


def test_fd_image_alone_leaves_the_text_tower_as_it_was(batch):
    task = task_of("fd_image")
    task(images_only(batch))["fd_image"].backward()
    assert task.student.token_embedding.weight.grad is None
    assert task.student.visual.conv1.weight.grad is not None


def test_fd_image_projects_to_a_teacher_of_another_width(batch):
    task = task_of("fd_image", teacher_width=24)
    assert task.image_head.out_features == 24
    assert not list(task.text_head.parameters())
    teacher = torch.nn.functional.normalize(torch.ones(4, 24), dim=-1)
    values = task(Batch(batch.images, batch.tokens, (Targets(teacher),)))
    assert 0 <= values["fd_image"].item() <= 4 / 24
