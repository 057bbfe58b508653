"""A recipe's losses: named sets, weights, ramps."""

import pytest
from kd_distill.config import Recipe
from kd_distill.ramps import weights_at


def recipe(**fields: object) -> Recipe:
    return Recipe(batch_size=8, steps=4, warmup=1, lr=1e-3, weight_decay=0.1, **fields)


def test_a_recipe_without_losses_is_the_sound_one():
    assert recipe() == recipe(losses="sound")
    assert (recipe().fd_reduction, recipe().icl_exp) == ("mean_n", True)
    assert "patch" in recipe().weights(patches=True)
    assert "patch" not in recipe().weights(patches=False)


@pytest.mark.parametrize(
    ("name", "terms"),
    [("clip-kd", "ckd fd icl task"), ("mse", "fd task"), ("icl", "icl task"), ("kl", "ckd task")],
)
def test_a_named_set_of_losses_has_its_terms(name, terms):
    assert sorted(recipe(losses=name).losses) == terms.split()


def test_clip_kd_is_the_papers_table_6_and_the_codes_reductions():
    found = recipe(losses="clip-kd")
    assert found.losses == {"task": 1, "ckd": 1, "icl": 1, "fd": 2000}
    assert (found.fd_reduction, found.icl_exp) == ("mean_nd", False)


def test_an_option_given_beside_a_named_set_overrides_it():
    assert recipe(losses="clip-kd", icl_exp=True).icl_exp


def test_an_unknown_set_of_losses_is_refused():
    with pytest.raises(ValueError, match=r"Unknown set of losses 'clipkd'. Known: clip-kd, mse, icl, kl, sound"):
        recipe(losses="clipkd")


@pytest.mark.parametrize(("shape", "middle"), [("linear", 6.0), ("cosine", 6.0)])
def test_a_ramp_goes_from_start_to_end_and_stays(shape, middle):
    ramp = recipe(losses={"fd": {"start": 2, "end": 10, "until": 8, "shape": shape}}).losses["fd"]
    assert [ramp.at(step) for step in (0, 4, 8, 99)] == pytest.approx([2, middle, 10, 10])


def test_a_cosine_ramp_is_slow_at_both_ends():
    ramp = recipe(losses={"task": 1, "fd": {"start": 0, "end": 1, "until": 8, "shape": "cosine"}}).losses["fd"]
    assert ramp.at(2) == pytest.approx((1 - 0.5**0.5) / 2)
    assert ramp.at(6) == pytest.approx((1 + 0.5**0.5) / 2)


def test_weights_at_a_step_are_numbers():
    weights = recipe(losses={"task": 1, "fd": {"start": 0, "end": 4, "until": 2}}).weights(patches=False)
    assert [weights_at(weights, step) for step in (0, 1)] == [{"task": 1, "fd": 0}, {"task": 1, "fd": 2}]


def test_a_weight_of_zero_for_ever_names_no_term_and_one_of_zero_at_first_does():
    weights = {"task": 1, "ckd": 0, "fd": {"start": 0, "end": 1, "until": 5}}
    assert recipe(losses=weights).weights(patches=False).keys() == {"task", "fd"}


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), {"start": 1, "end": 2}])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match="losses"):
        recipe(losses={"task": weight})


@pytest.mark.parametrize("ends", [(0, 1), (1, 0)])
def test_a_recipe_that_learns_nothing_at_some_step_is_refused(ends):
    with pytest.raises(ValueError, match="weight above 0 at step"):
        recipe(losses={"task": {"start": ends[0], "end": ends[1], "until": 2}})


def test_losses_of_patches_that_read_none_are_refused():
    with pytest.raises(ValueError, match="read no patches"):
        recipe(losses={"task": 1}, losses_of_patches={"fd": 1})
