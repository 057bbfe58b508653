import json

import pytest
from kd_analysis.claims import (
    ABOVE_BLIND,
    DISTILLED_ABOVE_ALONE,
    TEACHER_ABOVE_ALONE,
    Resampling,
    answer,
    by_task_above_blind,
    checks,
)
from kd_analysis.gap import gaps
from kd_analysis.pairs import pairs_of_teachers
from kd_analysis.rows import rows
from kd_analysis.scores import InputError, read_scored
from kd_analysis.study import assemble
from kd_analysis.trends import teachers_against_students
from kd_analysis.words import TEACHERS_DIFFER, caveats, sentence, short_answer

HOW = Resampling(seed=0, n_bootstrap=400, level=0.95)


def study_of(root, encoders=None):
    evaluated = read_scored(root / "eval") if (root / "eval").is_dir() else []
    return assemble(read_scored(root / "zeroshot"), evaluated, encoders or {})


def shift(root, name, by):
    """Make the first `by` wrong items of a zero-shot result right (or the other way round)."""
    path = root / "zeroshot" / name / "items.jsonl"
    items = [json.loads(line) for line in path.read_text().splitlines()]
    left = abs(by)
    for item in items:
        if left and item["score"] == float(by < 0):
            item["score"], left = float(by > 0), left - 1
    path.write_text("".join(json.dumps(i) + "\n" for i in items))
    scores = json.loads((path.parent / "scores.json").read_text())
    scores["scores"][0]["value"] = sum(i["score"] for i in items) / len(items)
    (path.parent / "scores.json").write_text(json.dumps(scores))


def test_the_better_teacher_is_computed_and_not_configured(inputs):
    assert study_of(inputs).teachers == ("large", "small")
    shift(inputs, "teacher-large", -400)
    assert study_of(inputs).teachers == ("small", "large")


def test_equal_students_give_no_answer_and_different_ones_do(inputs):
    claims = answer(study_of(inputs), HOW)
    assert [c.measure for c in claims] == ["zero-shot top-1", "Average of 16 tasks"]
    assert short_answer(claims) == "Not resolvable"
    shift(inputs, "student-vit--large--clip-kd", 200)
    assert short_answer(answer(study_of(inputs), HOW)) == "In part"
    shift(inputs, "student-vit--large--clip-kd", -500)
    assert short_answer(answer(study_of(inputs), HOW)) == "In part, the other way round"


def test_the_difference_is_that_of_the_scores_in_points(inputs):
    study = study_of(inputs)
    scores = {e.scored.ref.name: e.scored.scores["zeroshot"].percent for e in study.zeroshot}
    gap = scores["student-vit--large--clip-kd"] - scores["student-vit--small--clip-kd"]
    claim = answer(study, HOW)[0]
    assert claim.estimate.value == pytest.approx(gap)
    assert claim.estimate.low < gap < claim.estimate.high
    assert claim.n_items == 960


def test_every_check_of_a_healthy_study_says_yes(inputs):
    found = checks(study_of(inputs), HOW)
    assert {c.question for c in found} == {TEACHERS_DIFFER, TEACHER_ABOVE_ALONE, DISTILLED_ABOVE_ALONE, ABOVE_BLIND}
    assert {c.verdict for c in found} == {"yes"}
    assert len(found) == 2 + 4 + 4 + 1


def test_the_image_is_checked_task_by_task_with_adjusted_p(inputs):
    found = by_task_above_blind(study_of(inputs), HOW)
    assert [c.measure for c in found][:2] == ["MME-P", "MMBench"]
    assert len(found) == 16
    assert all(c.p_holm >= c.p for c in found)


def test_a_claim_does_not_depend_on_what_else_is_asked(inputs):
    study = study_of(inputs)
    assert [c.estimate for c in checks(study, HOW)] == [c.estimate for c in checks(study, HOW)]
    whole = answer(study, HOW)[0].estimate
    without = assemble([e.scored for e in study.zeroshot], [], {})
    assert answer(without, HOW)[0].estimate == whole


def test_gaps_put_a_student_beside_its_own_teacher(inputs):
    found = gaps(study_of(inputs), HOW)
    assert [(g.measure[:4], g.teacher) for g in found] == [
        ("zero", "large"), ("zero", "small"), ("Aver", "large"), ("Aver", "small"),
    ]  # fmt: skip
    for g in found:
        assert g.gap.estimate.value == pytest.approx(g.teacher_score.value - g.student_score.value)
        assert g.relative < 1
        assert g.alone < g.student_score.value


def test_seeds_widen_the_answer_and_are_counted(seeded):
    claims = answer(study_of(seeded), HOW)
    assert [c.better.split(",")[0] for c in claims] == ["mean of 2 kinds of student", "convnet", "vit"]
    assert {c.estimate.seeds for c in claims} == {3}
    assert all(len(c.by_seed) == 3 for c in claims)
    assert claims[0].estimate.value == pytest.approx(sum(claims[0].by_seed) / 3)
    assert claims[0].estimate.value == pytest.approx((claims[1].estimate.value + claims[2].estimate.value) / 2)
    only = assemble([e.scored for e in study_of(seeded).zeroshot if e.encoder.seed == 0], [], {})
    assert {c.estimate.seeds for c in answer(only, HOW)} == {1}


def test_teachers_of_one_training_stand_against_each_seed_of_a_student(seeded):
    found = [c for c in checks(study_of(seeded), HOW) if c.question == TEACHER_ABOVE_ALONE]
    assert {c.estimate.seeds for c in found} == {3}


def test_seeds_without_a_common_one_are_compared_by_their_means(seeded):
    for seed in (1, 2):
        folder = seeded / "zeroshot" / f"student-vit--large--clip-kd-s{seed}"
        path = folder / "scores.json"
        path.write_text(path.read_text().replace(f"clip-kd-s{seed}", f"clip-kd-s{seed + 5}"))
    first = seeded / "zeroshot" / "student-vit--large--clip-kd" / "scores.json"
    first.write_text(first.read_text().replace("clip-kd", "clip-kd-s5"))
    claim = next(c for c in answer(study_of(seeded), HOW) if c.better.startswith("vit"))
    assert claim.estimate.seeds == 1


def test_rows_take_seeds_together_and_show_their_spread(seeded):
    found = rows(study_of(seeded), 0.95)
    assert [r.role for r in found] == ["teacher"] * 2 + ["student"] * 4 + ["no teacher"] * 2
    assert {r.zeroshot.seeds for r in found if r.role != "teacher"} == {3}
    assert all(r.zeroshot.sd > 0 for r in found if r.role != "teacher")


def test_students_of_several_recipes_have_rows_of_different_names(inputs, write_zeroshot):
    write_zeroshot(
        inputs / "zeroshot", dict.fromkeys(["student-vit--large--sound", "student-vit--large--sound-s1"], 0.2)
    )
    found = [r.label for r in rows(study_of(inputs), 0.95)]
    assert len(set(found)) == len(found)
    assert {"vit, clip-kd, from large", "vit, sound, from large", "vit, from small"} <= set(found)


def test_rows_join_an_encoder_with_its_vlm_and_put_the_blind_one_last(inputs):
    found = rows(study_of(inputs), 0.95)
    assert [r.role for r in found] == ["teacher", "teacher", "student", "student", "no teacher", "blind"]
    assert all(r.zeroshot and r.average and len(r.tasks) == 16 for r in found[:-1])
    assert found[-1].zeroshot is None
    cell = found[0].average
    assert cell.value == pytest.approx(sum(c.value for c in found[0].tasks.values()) / 16)


def test_a_vlm_whose_encoder_is_unknown_is_said_and_can_be_configured(inputs):
    name = "vlm-teacher-small--lm-tiny--llava"
    path = inputs / "eval" / name / "scores.json"
    path.write_text(path.read_text().replace(name, "something-else"))
    study = study_of(inputs)
    assert any("something-else" in line for line in caveats(answer(study, HOW), [], study, [], True))
    known = study_of(inputs, {"something-else": "teacher-small"})
    assert [e.role for e in known.vlms].count("teacher") == 2


def test_vlms_scored_on_other_tasks_are_refused(inputs):
    path = inputs / "eval" / "vlm-teacher-small--lm-tiny--llava" / "scores.json"
    data = json.loads(path.read_text())
    data["scores"] = data["scores"][1:]
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match="mme_perception"):
        study_of(inputs)


def test_one_teacher_cannot_be_asked_about(inputs):
    import shutil

    shutil.rmtree(inputs / "zeroshot" / "teacher-small")
    shutil.rmtree(inputs / "eval")
    study = study_of(inputs)
    assert short_answer(answer(study, HOW)) == "Cannot be asked"
    assert "two teachers" in sentence([], study)


def test_no_teacher_at_all_is_an_error(inputs):
    import shutil

    for teacher in ("large", "small"):
        shutil.rmtree(inputs / "zeroshot" / f"teacher-{teacher}")
    with pytest.raises(InputError, match="teacher-<id>"):
        study_of(inputs)


def test_three_teachers_are_related_by_rank(inputs, write_zeroshot):
    write_zeroshot(inputs / "zeroshot", {"teacher-mid": 1.0, "student-vit--mid--clip-kd": 0.1})
    found = teachers_against_students(study_of(inputs), HOW.rng("x"))
    assert [t.spearman.n for t in found] == [3]


def test_with_three_teachers_every_pair_is_asked_and_adjusted_together(inputs, write_zeroshot):
    assert pairs_of_teachers(study_of(inputs), HOW) == []
    write_zeroshot(inputs / "zeroshot", {"teacher-middle": 1.0, "student-vit--middle--clip-kd": 0.9})
    claims = [c for c in pairs_of_teachers(study_of(inputs), HOW) if c.measure == "zero-shot top-1"]
    assert [(c.better, c.worse) for c in claims] == [
        ("vit, clip-kd, from large", "from middle"),
        ("vit, clip-kd, from large", "from small"),
        ("vit, clip-kd, from middle", "from small"),
    ]
    assert all(c.p_holm >= c.p for c in claims)
    assert claims[0].verdict == "no"
    assert claims[2].verdict == "yes"


def test_a_claim_over_tasks_tells_which_way_they_go(inputs):
    top1, average = answer(study_of(inputs), HOW)
    assert top1.signs is None
    assert average.signs.up + average.signs.down + average.signs.zero == 16
    assert 0 < average.signs.sign_p <= 1
    assert 0 < average.signs.wilcoxon_p <= 1


def test_student_over_teacher_is_paired_and_so_sharper_than_two_scores(inputs):
    for gap in gaps(study_of(inputs), HOW):
        student, teacher = gap.student_score, gap.teacher_score
        assert gap.relative == pytest.approx(student.value / teacher.value)
        assert gap.ratio.low < gap.relative < gap.ratio.high
        unpaired = ((student.se / student.value) ** 2 + (teacher.se / teacher.value) ** 2) ** 0.5 * gap.relative
        assert gap.ratio.se < unpaired


def test_tasks_are_summed_in_one_order_whatever_the_hashes_of_their_names(inputs, monkeypatch):
    """Sums of floats depend on their order; a set of names has another order in every process."""
    from kd_analysis import claims

    orders = []
    real = claims.claim
    monkeypatch.setattr(claims, "claim", lambda *a: orders.extend(list(d) for d in a[-1]) or real(*a))
    study = study_of(inputs)
    checks(study, HOW)
    one = next(iter(study.vlms))
    assert {tuple(o) for o in orders if len(o) > 1} <= {tuple(one.suite), tuple(sorted(one.suite))}
