import math

import numpy as np
import pytest
from kd_analysis.clustered import average, clustered, difference, mean_suite
from kd_analysis.ranks import spearman
from kd_analysis.stats import (
    bootstrap,
    bootstrap_ratio,
    from_error,
    holm,
    items_and_seeds,
    mcnemar,
    mean_over_tasks,
    minimum_detectable_difference,
    normal,
    sandwich_se,
    sign_test,
    t_interval,
    wilcoxon,
)


def task(scores, size=1):
    return clustered((f"{i // size:05d}", float(s)) for i, s in enumerate(scores))


def suite(seed=0, n=200, p=0.6, tasks=3):
    rng = np.random.default_rng(seed)
    return {f"t{k}": task(rng.random(n) < p) for k in range(tasks)}


def test_the_average_is_the_plain_mean_of_tasks_whatever_their_sizes():
    assert average({"a": task([1, 1]), "b": task([0] * 50)}) == 0.5


def test_repeated_items_of_one_image_do_not_sharpen_the_interval():
    rng = np.random.default_rng(0)
    right = (rng.random(100) < 0.5).astype(float)
    assert sandwich_se(task(np.repeat(right, 5), size=5)) == pytest.approx(sandwich_se(task(right)))


def test_the_difference_of_a_model_with_itself_is_exactly_zero():
    gap = difference(suite(), suite())
    found = bootstrap(gap, np.random.default_rng(0), n_bootstrap=200)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.verdict == "not resolvable"


def test_pairing_is_sharper_than_two_intervals():
    rng = np.random.default_rng(1)
    easy = rng.random(400)
    one, two = ({"a": task(easy < 0.6)}, {"a": task(easy < 0.55)})
    paired = normal(difference(one, two)).se
    assert paired < 0.5 * math.hypot(normal(one).se, normal(two).se)


def test_models_scored_on_other_items_are_not_compared():
    with pytest.raises(ValueError, match="same tasks"):
        difference({"a": task([1])}, {"b": task([1])})
    with pytest.raises(ValueError, match="same items"):
        difference({"a": task([1, 0])}, {"a": task([1, 0, 1])})
    with pytest.raises(ValueError, match="same items"):
        difference({"a": task([1, 0, 1, 1])}, {"a": task([1, 0, 1, 1], size=2)})


def test_equal_generators_give_equal_intervals():
    found = [bootstrap(suite(), np.random.default_rng(5), n_bootstrap=300) for _ in range(2)]
    assert found[0] == found[1]


def test_drawing_tasks_too_widens_the_interval_when_tasks_differ():
    mixed = {"a": task([1] * 100 + [0] * 10), "b": task([0] * 100 + [1] * 10), "c": task([1, 0] * 55)}
    plain = bootstrap(mixed, np.random.default_rng(0))
    wide = bootstrap(mixed, np.random.default_rng(0), resample_tasks=True)
    assert wide.se > 3 * plain.se
    assert wide.value == plain.value


def test_one_seed_is_the_item_interval_and_seeds_that_differ_widen_it():
    one = items_and_seeds([suite()])
    assert one == normal(suite())
    apart = items_and_seeds([suite(k, p=0.4 + 0.1 * k) for k in range(3)])
    assert apart.seeds == 3
    assert apart.high - apart.low > 2 * (one.high - one.low)
    assert apart.se > t_interval([average(suite(k, p=0.4 + 0.1 * k)) for k in range(3)]).se


def test_seeds_that_agree_leave_the_item_error():
    same = items_and_seeds([suite(), suite(), suite()])
    assert same.se == pytest.approx(normal(suite()).se)


def test_the_combined_interval_covers_both_sources():
    """Scores whose seeds and items both vary: about 95 % of 200 intervals must hold the truth."""
    rng, held = np.random.default_rng(8), 0
    for _ in range(200):
        ease = rng.normal(0, 0.15, 150)
        runs = [{"a": task(np.clip(0.5 + ease + rng.normal(0, 0.02), 0, 1))} for _ in range(3)]
        found = items_and_seeds(runs)
        held += found.low <= 0.5 <= found.high
    assert 183 <= held <= 200


def test_t_interval_of_one_seed_has_no_error():
    assert math.isnan(t_interval([0.4]).se)


def test_mean_suite_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        mean_suite([])


def test_mcnemar_without_discordant_items_says_nothing():
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="same items"):
        mcnemar([1], [1, 0])


def test_holm_keeps_order_and_never_exceeds_one():
    adjusted = holm({"x": 0.9, "y": 0.02, "z": 0.8})
    assert list(adjusted) == ["x", "y", "z"]
    assert adjusted == {"x": 1.0, "y": pytest.approx(0.06), "z": 1.0}


def test_the_detectable_difference_is_2_8_standard_errors():
    assert minimum_detectable_difference(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    assert minimum_detectable_difference(1.0, freedom=2) > 5
    assert math.isnan(minimum_detectable_difference(0.0))


def test_ranks_need_three_pairs_and_a_generator_when_there_are_many():
    with pytest.raises(ValueError, match="3 pairs"):
        spearman([1, 2], [1, 2])
    with pytest.raises(ValueError, match="Generator"):
        spearman(list(range(10)), list(range(10)))
    assert spearman(list(range(10)), list(range(10)), np.random.default_rng(0)).p < 0.001
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]).value)


def test_the_ratio_of_a_model_with_itself_is_exactly_one():
    found = bootstrap_ratio(suite(), suite(), np.random.default_rng(0), n_bootstrap=200)
    assert (found.value, found.low, found.high, found.se) == (1, 1, 1, 0)


def test_the_ratio_over_a_teacher_that_scores_nothing_is_not_a_number():
    nothing = {k: clustered((i, 0.0) for i in t.ids) for k, t in suite().items()}
    assert math.isnan(bootstrap_ratio(suite(), nothing, np.random.default_rng(0), n_bootstrap=200).value)


def test_seeds_and_items_are_told_apart():
    found = items_and_seeds([suite(seed=s, p=0.5 + 0.05 * s) for s in range(3)])
    assert found.se == pytest.approx(math.hypot(found.se_items, found.se_seeds))
    assert bootstrap(suite(), np.random.default_rng(0)).se_seeds is None


def test_an_unknown_error_gives_no_limits_and_no_p():
    found = from_error(1.0, math.nan)
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_the_mean_over_tasks_lies_in_its_interval():
    found = mean_over_tasks([1.0, 2.0, -0.5, 3.0], np.random.default_rng(0))
    assert found.value == 1.375
    assert found.low < found.value < found.high


def test_tasks_that_do_not_move_speak_for_nobody():
    assert wilcoxon([0.0, 0.0]) == 1.0
    assert wilcoxon([0.0, 1.0]) == 1.0
    assert sign_test([0.0, 0.0]) == (0, 0, 2, 1.0)
