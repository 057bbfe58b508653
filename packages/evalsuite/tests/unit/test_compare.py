import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kd_evalsuite.aligned import align
from kd_evalsuite.compare import How, compare
from kd_evalsuite.exhibits import flips, worst
from kd_evalsuite.items import DataError
from kd_evalsuite.results import read_results, told_apart
from kd_evalsuite.words import letters, sentences
from typer.testing import CliRunner

from packages.evalsuite.tests.helpers import scored

RUN = CliRunner()
FAST = How(samples=500)
scores = scored.random_scores


@pytest.fixture
def pair(tmp_path):
    return scored.two_models(tmp_path)


def test_a_large_difference_is_called_and_a_small_one_is_not(pair):
    found = compare(read_results(pair), how=FAST)
    by_task = {d.what: d for d in found.by_task}
    assert by_task["gqa"].ahead == "vlm-b"
    assert by_task["gqa"].low > 0
    assert by_task["ai2d"].ahead is None
    average = found.averages[0]
    assert average.value == pytest.approx(np.mean([d.value for d in found.by_task]))
    assert average.stderr == pytest.approx(np.hypot(*(d.stderr for d in found.by_task)) / 2)
    said = " ".join(sentences(found, ("vlm-a", "vlm-b"), letters(found.models)))
    assert "B is ahead on 1 (GQA); 1 cannot be told apart" in said


def test_values_are_those_of_scores_json(pair):
    results = read_results(pair)
    found = compare(results, how=FAST)
    for d in found.by_task:
        assert d.value_first == pytest.approx(results[0].mains[d.what].percent)
        assert d.value_second == pytest.approx(results[1].mains[d.what].percent)
        assert 100 * results[1].mains[d.what].stderr > 0


def test_a_model_against_itself_has_no_difference_and_nothing_is_called_equal(tmp_path, pair):
    folders = [pair[0], shutil.copytree(pair[0], tmp_path / "copy")]
    found = compare(told_apart(read_results(folders), folders), how=FAST)
    assert {(d.value, d.low, d.high, d.p, d.ahead) for d in found.by_task} == {(0.0, 0.0, 0.0, 1.0, None)}


def test_a_difference_that_only_luck_over_many_tasks_shows_is_not_called(tmp_path):
    """Eight discordant items to one: p = .04 alone, not among sixteen tasks."""
    keys = [f"task{k}" for k in range(16)]
    base = [1.0] * 20 + [0.0] * 20
    better = [0.0] + [1.0] * 19 + [1.0] * 8 + [0.0] * 12
    same = scored.rows("x", base)
    one = scored.write(tmp_path / "a", "a", {k: [r | {"task": k} for r in same] for k in keys})
    changed = {k: [r | {"task": k} for r in (scored.rows(k, better) if k == "task0" else same)] for k in keys}
    two = scored.write(tmp_path / "b", "b", changed)
    alone = compare(read_results([one, two]), ["task0"], how=FAST).by_task[0]
    assert (alone.only_first, alone.only_second) == (1, 8)
    assert alone.p == alone.p_mcnemar == pytest.approx(2 * 10 / 2**9)
    assert alone.ahead == "b"
    among = compare(read_results([one, two]), how=FAST).by_task[0]
    assert among.p_holm == pytest.approx(16 * alone.p)
    assert among.ahead is None


def test_missing_items_are_listed_and_left_out_only_when_asked(tmp_path):
    rows = scored.rows("gqa", scores(40, 0.5), cluster=lambda k: str(k // 4))
    one = scored.write(tmp_path / "a", "a", {"gqa": rows})
    two = scored.write(tmp_path / "b", "b", {"gqa": rows[:-1]})
    with pytest.raises(DataError, match=r"1 items were not answered by all models(.|\n)*b lacks 1: 39(.|\n)*--common"):
        compare(read_results([one, two]), how=FAST)
    found = compare(read_results([one, two]), how=FAST, common=True)
    assert found.left_out == {"gqa": 4}  # the whole cluster of item 39
    assert found.by_task[0].n == 36


def test_all_problems_are_said_at_once(tmp_path):
    rows = {key: scored.rows(key, scores(10, 0.5)) for key in ("gqa", "ai2d")}
    one = scored.write(tmp_path / "a", "a", rows)
    two = scored.write(tmp_path / "b", "b", {key: some[1:] for key, some in rows.items()})
    with pytest.raises(DataError, match=r"gqa: 1 items(.|\n)*ai2d: 1 items"):
        compare(read_results([one, two]), how=FAST)


def test_other_protocols_data_and_tasks_are_refused(tmp_path):
    rows = scored.rows("gqa", scores(10, 0.5))
    one = scored.write(tmp_path / "a", "a", {"gqa": rows, "ai2d": [r | {"task": "ai2d"} for r in rows]})
    two = scored.write(tmp_path / "b", "b", {"gqa": rows}, changes={"gqa": {"benchmark_version": "lmms-1+00000000"}})
    with pytest.raises(DataError, match="b lacks ai2d"):
        compare(read_results([one, two]), how=FAST)
    with pytest.raises(DataError, match="scored in different ways"):
        compare(read_results([one, two]), ["gqa"], how=FAST)
    with pytest.raises(DataError, match="No model was scored on gqaa"):
        compare(read_results([one, two]), ["gqaa"], how=FAST)


def test_items_that_do_not_give_the_score_are_refused(tmp_path):
    rows = scored.rows("gqa", [1.0, 0.0])
    one = scored.write(tmp_path / "a", "a", {"gqa": rows})
    two = scored.write(tmp_path / "b", "b", {"gqa": rows}, changes={"gqa": {"value": 0.7}})
    with pytest.raises(DataError, match=r"b: the items of gqa do not give its score of 0\.7"):
        align(read_results([one, two]), "gqa")


def test_a_mean_over_categories_is_resampled_within_them(tmp_path):
    """Two categories of 4 and 16 images: MME's kind of score."""
    values = scores(40, 0.5)
    category = lambda k: "big" if k >= 8 else "small"  # noqa: E731
    cluster = lambda k: str(k // 2)  # noqa: E731
    rows = scored.rows("mme_perception", values, category=category, cluster=cluster)
    macro = (np.mean(values[:8]) + np.mean(values[8:])) / 2
    changes = {"mme_perception": {"value": 400 * macro, "best": 400.0}}
    folders = [scored.write(tmp_path / n, n, {"mme_perception": rows}, changes=changes) for n in "ab"]
    one = align(read_results(folders), "mme_perception")
    assert one.way == "categories"
    assert [len(s.points) for s in one.strata(0)] == [16, 4]


def test_pairs_count_once(tmp_path):
    halves = np.repeat(scores(30, 0.5), 2).tolist()
    rows = scored.rows("mmvp", halves, cluster=lambda k: str(k // 2))
    folders = [scored.write(tmp_path / n, n, {"mmvp": rows}, changes={"mmvp": {"n": 30}}) for n in "ab"]
    one = align(read_results(folders), "mmvp")
    assert one.way == "clusters"
    assert len(one.units[0]) == 30


def test_variants_and_zero_shot_count_neither_in_groups_nor_in_the_average(tmp_path):
    keys = ["mme_perception", "gqa", "chartqa", "mme_cognition", "scienceqa_img", "zeroshot"]
    folders = [
        scored.write(tmp_path / n, n, {key: scored.rows(key, scores(40, 0.5, k)) for key in keys})
        for k, n in enumerate("ab")
    ]
    found = compare(read_results(folders), how=FAST)
    value = {d.what: d.value_second for d in (*found.by_task, *found.by_group, *found.averages)}
    assert {d.what for d in found.by_group} == {"General"}  # a group of one task says nothing new
    assert value["average"] == pytest.approx(np.mean([value[k] for k in keys[:3]]))
    assert value["General"] == pytest.approx(np.mean([value[k] for k in keys[:2]]))


def test_another_level_asks_for_another_p(pair):
    results = read_results(pair)
    usual = compare(results, how=FAST).by_task
    wide = compare(results, how=How(level=0.999, samples=2000)).by_task
    assert wide[0].alpha == pytest.approx(0.001)
    assert all(w.high - w.low > u.high - u.low for w, u in zip(wide, usual, strict=True))


def test_groups_of_unequal_size_count_once_each(tmp_path):
    """Circular accuracy: a group of two and one of four rotations weigh the same."""
    sizes, right = [2, 4, 3], [1.0, 0.0, 1.0]
    values = np.repeat(right, sizes).tolist()
    group = np.repeat(range(3), sizes).tolist()
    rows = scored.rows("mmbench_en", values, cluster=lambda k: f"g{group[k]}")
    changes = {"mmbench_en": {"value": float(np.mean(right)), "n": 3}}
    folders = [scored.write(tmp_path / n, n, {"mmbench_en": rows}, changes=changes) for n in "ab"]
    one = align(read_results(folders), "mmbench_en")
    assert one.way == "clusters"
    assert one.units[0][:, 0].tolist() == right


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_common_items_give_the_difference_of_a_plain_loop(tmp_path_factory, data):
    n = data.draw(st.integers(2, 30))
    clusters = data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    values = [data.draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=n, max_size=n)) for _ in range(2)]
    gone = [data.draw(st.sets(st.integers(0, n - 1), max_size=n - 1)) for _ in range(2)]
    root, folders = tmp_path_factory.mktemp("common"), []
    for name, scores_, absent in zip("ab", values, gone, strict=True):
        rows = scored.rows("gqa", scores_, cluster=lambda k: f"c{clusters[k]}")
        kept = [row for k, row in enumerate(rows) if k not in absent]
        folders.append(scored.write(root / name, name, {"gqa": kept}, changes={"gqa": {"n": len(kept)}}))
    broken = {clusters[k] for k in gone[0] ^ gone[1]}
    common = [k for k in range(n) if clusters[k] not in broken and k not in gone[0]]
    if not common:
        with pytest.raises(DataError, match="no items in common"):
            compare(read_results(folders), how=How(samples=100), common=True)
        return
    (d,) = compare(read_results(folders), how=How(samples=100), common=True).by_task
    assert d.n == len(common)
    assert d.value == pytest.approx(100 * np.mean([values[1][k] - values[0][k] for k in common]), abs=1e-9)
    assert (d.only_first, d.only_second) == (
        sum(values[0][k] > values[1][k] for k in common),
        sum(values[1][k] > values[0][k] for k in common),
    )


def test_three_models_stand_against_the_first_or_in_all_pairs(tmp_path):
    folders = [
        scored.write(tmp_path / n, n, {"gqa": scored.rows("gqa", scores(50, 0.5, k))}) for k, n in enumerate("abc")
    ]
    assert compare(read_results(folders), how=FAST).pairs == [("a", "b"), ("a", "c")]
    assert compare(read_results(folders), how=FAST, all_pairs=True).pairs == [("a", "b"), ("a", "c"), ("b", "c")]


def test_a_difference_does_not_depend_on_what_else_is_compared(pair):
    results = read_results(pair)
    alone = compare(results, ["gqa"], how=FAST).by_task[0]
    among = next(d for d in compare(results, how=FAST).by_task if d.what == "gqa")
    assert (alone.low, alone.high, alone.p) == (among.low, among.high, among.p)


def test_constant_answers_guesses_and_unread_replies_raise_an_alarm(tmp_path):
    rows = scored.rows("cvbench_3d", scores(100, 0.5))
    odd = {"top_answer_share": 0.995, "chance": 0.5, "n_unparsed": 30}
    folders = [
        scored.write(tmp_path / "a", "a", {"cvbench_3d": rows}, changes={"cvbench_3d": odd}),
        scored.write(tmp_path / "b", "b", {"cvbench_3d": rows}, changes={"cvbench_3d": {"chance": 0.2}}),
    ]
    found = compare(read_results(folders), how=FAST)
    assert {(a.model, a.kind) for a in found.alarms} == {("a", "one answer"), ("a", "chance"), ("a", "unread")}


def test_flips_are_both_ways_spread_over_clusters_and_complete(tmp_path):
    first = scored.rows("gqa", [1.0, 1.0, 0.0, 0.0, 1.0, 0.0], cluster=lambda k: str(k // 2))
    second = scored.rows("gqa", [0.0, 0.0, 1.0, 0.0, 0.0, 0.0], cluster=lambda k: str(k // 2))
    folders = [scored.write(tmp_path / n, n, {"gqa": r}) for n, r in (("a", first), ("b", second))]
    one = align(read_results(folders), "gqa")
    gained, lost = flips(one, 0, 1)
    assert (gained, sorted(lost)) == (["2"], ["0", "1", "4"])
    assert {lost[0], lost[1]} in ({"0", "4"}, {"1", "4"})  # one of each image before a second of the same
    assert set(worst(one)) == {"0", "1", "2", "3", "4", "5"}
    assert set(worst(one)[:2]) <= {"3", "5"}  # both models are wrong on these
