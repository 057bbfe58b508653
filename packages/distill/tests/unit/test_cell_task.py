"""From a cell's parameters to its task."""

from types import SimpleNamespace

import pytest
from kd_distill import run
from kd_distill.cells import Cell
from kd_distill.config import Recipe
from kd_distill.task import DistillationTask

from packages.distill.tests.reference.tiny import ARCHITECTURE, TEACHERS

CELL = Cell(kind="student", id="vit", architecture="demo-vit", recipe="any", teacher="teacher-wide", seed=4)


def task_of(**fields: object) -> DistillationTask:
    recipe = Recipe(batch_size=8, steps=4, warmup=1, lr=1e-3, weight_decay=0.1, **fields)
    return run._task(CELL, recipe, ARCHITECTURE, SimpleNamespace(infos=(TEACHERS[1],)))


def test_a_teachers_scale_is_its_own_unless_it_is_given():
    assert task_of().teachers[0].scale == TEACHERS[1].scale
    assert task_of(teacher_scales={"teacher-wide": 70}).teachers[0].scale == 70


def test_a_scale_of_another_teacher_is_refused():
    with pytest.raises(ValueError, match=r"teacher_scales names \['teacher-x'\]; its teachers are teacher-wide"):
        task_of(teacher_scales={"teacher-x": 70})


def test_the_sound_losses_distil_patches_where_the_teacher_gives_them():
    assert task_of().terms == ("ckd", "fd", "icl", "patch", "task")


def test_heads_are_a_function_of_the_seed():
    first, second = (task_of().heads["teacher-wide"].image.weight for _ in range(2))
    assert first.equal(second)


def test_options_of_the_recipe_reach_the_task():
    task = task_of(losses={"mfd": 1, "mse": 1}, mse_normalise=True, fd_reduction="mean_n", loss_block=32, mask=0.5)
    assert (task.options.mse_normalise, task.options.fd_reduction, task.options.block) == (True, "mean_n", 32)
    assert (task.mask, task.seed, task.student_grid) == (0.5, 4, (4, 4, 32))
