import copy
import dataclasses

import pytest
import torch
from kd_distill.batch import Batch, Targets
from kd_distill.losses import TERMS, feature_distillation, table
from kd_distill.optim import build_optimizer
from kd_distill.task import DistillationTask, loss_and_gradients
from safetensors.torch import load_file, save_file

from packages.distill.tests.reference.tiny import TEACHERS, batch_of, gradients, task_of, weights_of

LOGIT_SCALE = "student.logit_scale"


def images_only(batch: Batch) -> Batch:
    return dataclasses.replace(batch, teachers=tuple(Targets(t.image) for t in batch.teachers))


def train(task: DistillationTask, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_and_gradients(task, batch_of(), weights_of(TERMS), step=step)
        optimizer.step()


def optimizer_of(task: DistillationTask) -> torch.optim.Optimizer:
    return build_optimizer(task, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6)


def test_fd_image_is_the_image_half_of_fd():
    task, batch = task_of(("fd", "fd_image")), batch_of()
    values = task(batch)
    text = task.student.encode_text(batch.tokens)
    halves = [
        feature_distillation(torch.nn.functional.normalize(heads.text(text), dim=-1), targets.text)
        for heads, targets in zip(task.heads.values(), batch.teachers, strict=True)
    ]
    torch.testing.assert_close(values["fd_image"], values["fd"] - sum(halves))


def test_fd_image_needs_no_captions_of_the_teacher():
    assert task_of(("fd_image",))(images_only(batch_of())).keys() == {"fd_image"}


def test_the_task_loss_beside_a_teacher_without_captions_trains_both_towers():
    task = task_of(("task", "fd_image"))
    loss_and_gradients(task, images_only(batch_of()), {"task": 1, "fd_image": 1})
    assert {"student.token_embedding.weight", "student.visual.conv1.weight"} <= gradients(task).keys()


@pytest.mark.parametrize(("term", "trained_tower"), [("fd_image", "visual"), ("kl_text", "token_embedding")])
def test_a_term_of_one_modality_leaves_the_other_tower_as_it_was(term, trained_tower):
    task = task_of((term,))
    loss_and_gradients(task, batch_of(), {term: 1})
    towers = {name.split(".")[1] for name in gradients(task) if name.startswith("student.")}
    assert (trained_tower in towers, len(towers & {"visual", "token_embedding"})) == (True, 1)


def test_heads_stand_where_the_widths_differ():
    heads = task_of(("fd_image",)).heads
    assert not list(heads["teacher-same"].parameters())
    assert heads["teacher-wide"].image.out_features == 24
    assert not list(heads["teacher-wide"].text.parameters())


@pytest.mark.parametrize("name", TERMS)
def test_a_term_of_weight_zero_is_not_computed(monkeypatch, name):
    def refuse(*_: object) -> None:
        raise AssertionError(f"{name} was computed")

    other = "fd_image" if name != "fd_image" else "task"
    task = task_of((name, other))
    monkeypatch.setitem(table.TERMS, name, dataclasses.replace(TERMS[name], compute=refuse))
    _, values = loss_and_gradients(task, batch_of(), {name: 0.0, other: 1.0})
    assert values.keys() == {other}
    with pytest.raises(AssertionError, match="was computed"):
        loss_and_gradients(task, batch_of(), {name: 1.0, other: 1.0}, step=0)


@pytest.mark.parametrize("weights", [{"task": 1.0, "fd": 1.0}, {}, {"fd": 1.0}])
def test_weights_and_terms_must_name_the_same(weights):
    with pytest.raises(ValueError, match="name different things"):
        loss_and_gradients(task_of(("task",)), batch_of(), weights)


def test_gradients_are_multiplied_by_the_scalers_factor_and_values_are_not():
    plain, scaled = task_of(("task", "gd")), task_of(("task", "gd"))
    loss, _ = loss_and_gradients(plain, batch_of(), {"task": 1, "gd": 2})
    same, _ = loss_and_gradients(scaled, batch_of(), {"task": 1, "gd": 2}, grad_scale=1024.0)
    assert torch.equal(loss, same)
    expected = {name: 1024 * grad for name, grad in gradients(plain).items()}
    torch.testing.assert_close(gradients(scaled), expected)


def test_terms_are_float32_when_the_towers_run_in_bfloat16():
    from kd_distill.models import build, preprocessing_of

    from packages.distill.tests.reference.tiny import ARCHITECTURE

    student = build(ARCHITECTURE, 0)
    task = DistillationTask(
        student, ("task", "ckd", "gd"), student_width=16, preprocessing=preprocessing_of(ARCHITECTURE),
        teachers=TEACHERS, precision="bf16",
    )  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        values = task(batch_of())
    assert {value.dtype for value in values.values()} == {torch.float32}


def test_a_frozen_student_still_trains_its_heads():
    task = task_of(("fd", "icl"))
    task.student.requires_grad_(False)
    loss_and_gradients(task, batch_of(), {"fd": 1, "icl": 1}, chunk=3)
    assert {name.split(".")[0] for name in gradients(task)} == {"heads"}


@pytest.mark.parametrize("icl_exp", [True, False])
def test_scales_stay_below_one_hundred_and_clip_kds_logarithms_as_they_are(icl_exp):
    task = task_of(("task", "icl", "afd"), icl_exp=icl_exp)
    scales = [p for name, p in task.named_parameters() if name.endswith("_scale")]
    for scale in scales:
        scale.data.fill_(9.0)
    task.clamp_scales()
    clamped = {name for name, p in task.named_parameters() if name.endswith("_scale") and p < 5}
    assert clamped == ({n for n, _ in task.named_parameters() if n.endswith("_scale")} if icl_exp else {LOGIT_SCALE})


def test_weights_that_are_all_zero_are_refused():
    with pytest.raises(ValueError, match="weight other than 0"):
        loss_and_gradients(task_of(("task",)), batch_of(), {"task": 0.0})


def test_an_error_within_the_loss_leaves_autocast_as_it_was(monkeypatch):
    monkeypatch.setitem(table.TERMS, "fd", dataclasses.replace(TERMS["fd"], compute=lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError), torch.autocast("cpu", torch.bfloat16):
        loss_and_gradients(task_of(("fd",)), batch_of(), {"fd": 1.0})
    assert not torch.is_autocast_enabled("cpu")


def test_the_mask_of_mfd_depends_on_seed_and_step_alone():
    task = task_of(("mfd",))
    kept = [task._kept_patches(8, step) for step in (3, 3, 4)]
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])
    assert kept[0].shape == (8, 4)  # a quarter of 16 patches
    assert all(len(set(row.tolist())) == 4 for row in kept[0])


def test_mfd_sees_a_part_of_the_image():
    """A change of a hidden patch is not seen, one of a kept patch is."""
    task, batch = task_of(("mfd",)), batch_of()
    kept = task._kept_patches(8, 0)[0].tolist()
    hidden = next(p for p in range(16) if p not in kept)

    def value(patch: int) -> float:
        images = batch.images.clone()
        row, column = divmod(patch, 4)
        images[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] ^= 255
        return task(dataclasses.replace(batch, images=images), step=0)["mfd"].item()

    assert value(hidden) == task(batch, step=0)["mfd"].item() != value(kept[0])


def test_mfd_without_a_step_is_refused():
    with pytest.raises(ValueError, match="pass step="):
        task_of(("mfd",))(batch_of())


def test_every_parameter_that_the_optimiser_holds_is_in_the_state():
    task = task_of()
    optimizer = optimizer_of(task)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    saved = {id(p) for p in task.state_dict(keep_vars=True).values()}
    assert held <= saved
    assert {id(p) for p in task.parameters()} == held


def value_at_start(name: str) -> torch.Tensor:
    return task_of().state_dict()[name]


def test_heads_and_statistics_saved_loaded_and_resumed_are_bit_equal(tmp_path):
    whole, resumed = task_of(), task_of()
    optimizers = optimizer_of(whole), optimizer_of(resumed)
    train(whole, optimizers[0], range(2))
    save_file(whole.state_dict(), tmp_path / "task.safetensors")
    resumed.load_state_dict(load_file(tmp_path / "task.safetensors"))
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for task, optimizer in zip((whole, resumed), optimizers, strict=True):
        train(task, optimizer, range(2, 4))
    assert any("statistics.mean" in name for name in whole.state_dict())
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    for name in ("heads.teacher-wide.image.weight", "heads.teacher-same.statistics.mean"):
        assert not torch.equal(value_at_start(name), whole.state_dict()[name])


def test_statistics_stand_still_in_evaluation():
    task = task_of(("standardised",))
    task(batch_of())
    before = task.heads["teacher-wide"].statistics.count.clone()
    task.eval()(batch_of())
    assert torch.equal(task.heads["teacher-wide"].statistics.count, before)


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"mfd"}))  # mfd's mask depends on the row
def test_the_order_of_pairs_does_not_matter(name):
    batch, order = batch_of(), torch.randperm(8, generator=torch.Generator().manual_seed(2))
    targets = tuple(Targets(t.image[order], t.text[order], t.patches[order]) for t in batch.teachers)
    other = Batch(batch.images[order], batch.tokens[order], targets)
    torch.testing.assert_close(task_of((name,))(other), task_of((name,))(batch), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("terms", "teachers", "message"),
    [
        (("ckd",), (), "need a teacher"),
        (("task", "fdd"), TEACHERS, "Unknown loss terms"),
        (("patch",), (dataclasses.replace(TEACHERS[0], grid=None),), "teacher-same gives none"),
        (("sigmoid_kd",), (dataclasses.replace(TEACHERS[0], bias=0.0),), "teacher-same has no bias"),
        (("fd",), (TEACHERS[0], TEACHERS[0]), "each teacher once"),
    ],
)
def test_what_does_not_fit_is_refused(terms, teachers, message):
    with pytest.raises(ValueError, match=message):
        task_of(terms, teachers=teachers)


@pytest.mark.parametrize(("term", "message"), [("ckd", "compare captions"), ("patch", "read patch tokens")])
def test_targets_that_a_term_lacks_are_an_error_that_names_the_teacher(term, message):
    with pytest.raises(ValueError, match=f"{message}; the targets of teacher-same have none"):
        task_of((term,))(images_only(batch_of()))


def test_targets_of_another_number_of_teachers_are_refused():
    batch = dataclasses.replace(batch_of(), teachers=batch_of().teachers[:1])
    with pytest.raises(ValueError, match="2 teachers in the batch, got 1"):
        task_of(("fd",))(batch)
