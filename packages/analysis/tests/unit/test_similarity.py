import math

import numpy as np
import pytest
from kd_analysis.gram import gram_cka
from kd_analysis.measure import discovered, metrics_of, plan, shas_of
from kd_analysis.similarity import (
    Features,
    Pair,
    compare,
    mean_over_tasks,
    read_records,
    relation_of,
    write_records,
)
from kd_analysis.tracking import Model

STUDENT, TEACHER = "student-vit--large--kd", "teacher-large"
IDS = tuple(f"image{i}" for i in range(30))


def features(width, seed, ids=IDS):
    return Features(ids, np.random.default_rng(seed).standard_normal((len(ids), width)).astype("float32"))


def records(**over):
    given = {"s": features(6, 0), "t": features(9, 1)} | over
    return compare(
        [Pair(STUDENT, TEACHER, "own teacher", "s", "t")],
        given,
        {"gqa": IDS[:20], "mmvp": IDS[10:], "tiny": IDS[:3]},
        tap="pooled",
        estimators=("debiased", "biased"),
        level=0.95,
        sha256={STUDENT: "a" * 64, TEACHER: "b" * 64},
    )


def test_each_task_uses_its_own_images():
    found = {(r.task, r.estimator): r.value for r in records()}
    x, y = features(6, 0).rows, features(9, 1).rows
    assert found["gqa", "debiased"] == pytest.approx(gram_cka(x[:20], y[:20]), abs=1e-12)
    assert found["mmvp", "biased"] == pytest.approx(gram_cka(x[10:], y[10:], "biased"), abs=1e-12)


def test_too_few_images_leave_a_reason_and_no_value():
    missing = [r for r in records() if r.task == "tiny" and r.estimator == "debiased"]
    assert missing[0].value is None
    assert "at least 4 images" in missing[0].reason


def test_other_images_on_one_side_are_an_error():
    with pytest.raises(ValueError, match="same images in the same order"):
        records(t=features(9, 1, IDS[::-1]))
    with pytest.raises(ValueError, match="missing"):
        records(s=features(6, 0, IDS[:25]), t=features(9, 1, IDS[:25]))


def test_records_survive_the_file(tmp_path):
    write_records(tmp_path / "cka.json", records())
    assert read_records(tmp_path / "cka.json") == records()
    with pytest.raises(FileNotFoundError, match="analysis cka"):
        read_records(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('[{"student": 1}]')
    with pytest.raises(ValueError, match="JSON list of records"):
        read_records(tmp_path / "bad.json")


def test_metrics_are_named_as_the_contract_says_and_leave_out_what_is_missing():
    found = metrics_of(records(), STUDENT)
    assert set(found) == {
        "cka/pooled/debiased/gqa", "cka/pooled/debiased/mmvp",
        "cka/pooled/biased/gqa", "cka/pooled/biased/mmvp", "cka/pooled/biased/tiny",
    }  # fmt: skip
    assert shas_of(records()) == {STUDENT: "a" * 64}


def test_the_mean_over_tasks_leaves_out_what_is_missing():
    value, se = mean_over_tasks([r for r in records() if r.estimator == "debiased"])
    assert math.isfinite(value)
    assert se > 0
    assert math.isnan(mean_over_tasks([])[0])


@pytest.mark.parametrize(
    ("student", "teacher", "given", "relation"),
    [
        (STUDENT, TEACHER, False, "own teacher"),
        (STUDENT, "teacher-small", True, "other teacher"),
        ("student-vit--none--clip", TEACHER, True, "no teacher"),
        ("folder", "other-folder", True, "own teacher"),
        ("folder", "other-folder", False, "other teacher"),
    ],
)
def test_the_relation_comes_from_the_names(student, teacher, given, relation):
    assert relation_of(student, teacher, given) == relation


def test_the_plan_holds_every_control_once(tmp_path):
    from kd_analysis.measure import Encoders

    def model(name):
        return Model(tmp_path / name, "student", name, name)

    students = {n: model(n) for n in (STUDENT, "student-vit--none--clip", "student-conv--small--kd")}
    teachers = {n: model(n) for n in (TEACHER, "teacher-small")}
    pairs, fresh = plan(Encoders(students, teachers, frozenset()), lambda path: path.name.split("--")[0])
    counts = {r: sum(p.relation == r for p in pairs) for r in {p.relation for p in pairs}}
    assert counts == {"own teacher": 2, "other teacher": 2, "no teacher": 2, "untrained": 4, "teachers": 1}
    assert len(fresh) == 2


def test_references_are_found_in_subfolders(tmp_path):
    for place in ("scratch/teacher-large", "scratch/student-vit--none--clip", "distilled/student-vit--large--kd"):
        path = tmp_path / f"{place}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    (tmp_path / "registry.json").write_text("{}")
    students, teachers = discovered(tmp_path)
    assert len(students) == 2
    assert teachers == [str(tmp_path / "scratch" / "teacher-large.json")]


def test_pairs_that_share_a_task_do_not_sharpen_the_mean():
    some = [r for r in records() if r.estimator == "debiased"]
    assert mean_over_tasks(some + some) == pytest.approx(mean_over_tasks(some))
