"""Recipes that differ in data or schedule alone share a loss in the tables; weights of others stand in Table 1."""

import pytest
from kd_analysis.grid import Grid
from kd_analysis.plots import curve
from kd_analysis.recipes import Recipe, length_of, told
from kd_analysis.results import Result
from kd_analysis.study_tables import data_sets, encoders, losses
from kd_analysis.tasks import IMAGENET

RECIPES = {
    "kd": Recipe(dataset="small"),
    "mse": Recipe(dataset="small"),
    "kd-more": Recipe(loss="kd", dataset="large"),
    "kd-long": Recipe(loss="kd", dataset="small", epochs=9.0),
    "released": Recipe(encoder="Theirs"),
}


def student(teacher, recipe, epochs=3.0, epoch=None, task="average", value=50.0):
    place = {"framework": "f", "llm": "l"} if task == "average" else {}
    at = epochs if epoch is None else epoch
    return Result(**place, teacher=teacher, student="vit", loss=recipe, epochs=epochs, epoch=at, task=task, value=value)


@pytest.fixture
def grid():
    own = [Result(framework="f", llm="l", teacher=t, task="average", value=60.0) for t in ("a", "b")]
    trained = [
        student(t, r, task=k) for t in ("a", "b") for r in ("kd", "mse", "kd-more") for k in ("average", IMAGENET)
    ]
    long = [student("a", "kd-long", 9.0, e, IMAGENET) for e in (3.0, 6.0, 9.0)]
    return Grid(told([*own, *trained, *long, student("a", "released")], RECIPES))


def labels(table):
    return [row.labels for block in table.blocks for row in block.rows]


def test_losses_are_compared_on_the_same_data_and_schedule(grid):
    assert {loss for _, loss in labels(losses(grid))} == {"kd", "mse"}


def test_data_sets_are_compared_under_the_same_loss(grid):
    assert {data for _, data in labels(data_sets(grid))} == {"small", "large"}


def test_a_longer_schedule_of_the_same_loss_gives_the_curve(grid):
    points = curve(grid, IMAGENET, "figure3a").data
    assert [p["epoch"] for p in points] == [3.0, 6.0, 9.0]


def test_weights_of_others_stand_among_the_pretrained_encoders(grid):
    assert ("Theirs",) in {tuple(label) for label in labels(encoders(grid))}
    assert "Theirs" not in grid.teachers


def test_what_is_not_told_stays():
    one = student("a", "other")
    assert told([one], RECIPES) == [one]


def test_a_recipe_has_the_length_that_is_told_or_that_of_all():
    assert [length_of(name, RECIPES, 3.0) for name in ("kd-long", "kd", "other")] == [9.0, 3.0, 3.0]
