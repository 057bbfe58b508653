"""Active selection of batches in real runs: resumed, over ranks, and without a trace in the student."""

from pathlib import Path

import pytest
import torch
from kd_distill import models
from kd_distill.active import ActivePairs, Selection
from kd_distill.batch import Batch, Targets
from kd_distill.cache import TeacherCache
from kd_distill.config import Recipe
from kd_distill.online import Teachers
from kd_distill.run import _task
from kd_distill.teaching import make_cache

from packages.distill.tests.recipe.conftest import ARCHITECTURE
from packages.distill.tests.recipe.test_teaching import STUDENT, pairs_for, quiet, section, train_student

pytestmark = pytest.mark.recipe


def active_recipe(project: Path) -> Recipe:
    plain = section(project).recipes["clip-kd"].model_dump()
    return Recipe.model_validate(plain | {"active": {"keep": 0.5, "chunks": 2}, "save_every_steps": 4})


def test_an_active_run_that_was_killed_ends_bit_for_bit_like_one_that_was_not(project, wide):
    make_cache(section(project).data, wide, quiet)
    whole = train_student(project, active_recipe(project), "whole")

    def die_at_seven(what: str, done: int, of: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(project, active_recipe(project), "resumed", progress=die_at_seven)
    resumed = train_student(project, active_recipe(project), "resumed")
    assert (whole / models.WEIGHTS).read_bytes() == (resumed / models.WEIGHTS).read_bytes()
    plain = train_student(project, section(project).recipes["clip-kd"], "plain")
    assert (whole / models.WEIGHTS).read_bytes() != (plain / models.WEIGHTS).read_bytes()


def test_active_batches_of_two_ranks_are_those_of_one(project, wide):
    teachers = Teachers([TeacherCache(make_cache(section(project).data, wide, quiet))])
    params = section(project)
    task = _task(params.cells[STUDENT], params.recipes["clip-kd"], ARCHITECTURE, teachers)
    active = ActivePairs(pairs_for(project, teachers), task, Selection(keep=0.5, chunks=2, groups=2), 100.0)
    rows = {"batch_size": 8, "order_seed": 0}
    for whole, *parts in zip(
        active.steps(0, 3, **rows), *(active.steps(0, 3, **rows, rank=r, world=2) for r in (0, 1)), strict=True
    ):
        assert len(whole.keys) == 8
        assert whole.keys == parts[0].keys + parts[1].keys
        assert torch.equal(whole.images, torch.cat([p.images for p in parts]))
        assert torch.equal(whole.teachers[0].text, torch.cat([p.teachers[0].text for p in parts]))
    with pytest.raises(ValueError, match=r"active.groups: expected a multiple of the 3 ranks, got 2"):
        next(active.steps(0, 1, **rows, rank=0, world=3))


def test_looking_at_pairs_does_not_change_the_student(project, wide):
    """A tower with BatchNorm counts what it sees in train mode."""
    student = models.build(models.read_architecture("demo-conv"), seed=0)

    class Task:
        preprocessing = models.preprocessing_of(models.read_architecture("demo-conv"))

    Task.student = student.train()
    size = Task.preprocessing.size
    z = torch.nn.functional.normalize(torch.arange(1.0, 33).reshape(8, 4).sin(), dim=-1)
    batch = Batch(
        torch.zeros(8, 3, size, size, dtype=torch.uint8), torch.ones(8, 5, dtype=torch.int64), (Targets(z, z),)
    )

    class One:
        def steps(self, start, stop, **rows):
            yield batch

    before = {k: v.clone() for k, v in student.state_dict().items()}
    chosen = next(ActivePairs(One(), Task, Selection(keep=0.5), 10.0).steps(0, 1, batch_size=4, order_seed=0))
    assert len(chosen.images) == 4
    assert student.training
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, before[name]), name
