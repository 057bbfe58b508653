import math

import numpy as np
import pytest
from kd_analysis import measures
from kd_analysis.cells import _averaged
from kd_analysis.comparing import Features, Pair, compare
from kd_analysis.gram import gram_cka
from kd_analysis.library import Encoders
from kd_analysis.measure import discovered, measure_metrics, metrics_of, plan, shas_of
from kd_analysis.measures import MEASURES, checked
from kd_analysis.similarity import mean_over_tasks, read_records, relation_of, write_records
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
    ).records


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
    with pytest.raises(ValueError, match="5 are missing"):
        records(t=features(9, 1, IDS[:25]))


def test_rows_are_paired_by_image_and_not_by_place():
    there = features(9, 1)
    turned = Features(there.ids[::-1], there.rows[::-1])
    assert [r.value for r in records(t=turned)] == [r.value for r in records()]


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


def test_trainings_that_differ_in_their_seed_are_compared_with_each_other(tmp_path):
    names = (STUDENT, f"{STUDENT}-s1", "student-vit--small--kd-s1")
    students = {n: Model(tmp_path / n, "student", n, n) for n in names}
    teachers = {n: Model(tmp_path / n, "teacher", n, n) for n in (TEACHER,)}
    pairs, _ = plan(Encoders(students, teachers, frozenset()), lambda path: "one")
    assert [(p.student, p.teacher) for p in pairs if p.relation == "two seeds"] == [(f"{STUDENT}-s1", STUDENT)]


def two_teachers(**over):
    pairs = [
        Pair(STUDENT, TEACHER, "own teacher", "s", "t"),
        Pair(STUDENT, "teacher-small", "other teacher", "s", "o"),
    ]
    given = {"s": features(6, 0), "t": features(9, 1), "o": features(5, 2)}
    sha256 = {STUDENT: "a", TEACHER: "b", "teacher-small": "c"}
    options = {"tap": "pooled", "estimators": ("debiased", "biased"), "level": 0.95, "sha256": sha256}
    return compare(pairs, given, {"gqa": IDS}, **(options | over))


def test_two_teachers_of_a_student_are_compared_on_the_same_images():
    (line,) = two_teachers().differences
    own, other = (r for r in two_teachers().records if r.estimator == "debiased")
    assert line.value == pytest.approx(own.value - other.value, abs=1e-15)
    assert line.low < line.value < line.high
    assert (line.teacher, line.other, line.n) == (TEACHER, "teacher-small", 30)


def test_every_other_measure_is_recorded_with_its_reason_or_value():
    found = two_teachers(measures=MEASURES).measured
    assert len(found) == 2 * len(MEASURES)
    assert all((m.value is None) == bool(m.reason) for m in found)
    rbf = next(m for m in found if m.measure == "rbf_debiased")
    assert set(rbf.detail) == {"sigma_student", "sigma_teacher", "seed"}
    with pytest.raises(ValueError, match="all, got nearest"):
        checked(["nearest"])


def test_more_images_than_an_n_by_n_measure_takes_are_refused_with_a_reason(monkeypatch):
    monkeypatch.setattr(measures, "MOST", 20)
    found = {m.measure: m for m in two_teachers(measures=("procrustes", "rsa")).measured}
    assert found["procrustes"].value is not None
    assert "set max_images" in found["rsa"].reason


def test_a_pair_without_features_leaves_its_reason():
    lone = [Pair(STUDENT, TEACHER, "own teacher", "", "", missing="no head")]
    found = compare(
        lone, {}, {"gqa": IDS}, tap="embed_kd", estimators=("debiased",), level=0.95, sha256={STUDENT: "", TEACHER: ""}
    )
    assert (found.records[0].value, found.records[0].reason) == (None, "no head")


def test_cells_of_an_image_are_left_out_together():
    """Copies of a row within each image: the value is that of the copies, the interval that of the images."""
    one, two = features(6, 0), features(9, 1)
    x, y = (Features(f.ids, np.repeat(f.rows[:, None], 4, axis=1)) for f in (one, two))
    lone = [Pair(STUDENT, TEACHER, "own teacher", "x", "y")]
    found = compare(
        lone, {"x": x, "y": y}, {"gqa": IDS}, tap="patch_tokens", estimators=("debiased",), level=0.95,
        sha256={STUDENT: "", TEACHER: ""},
    ).records[0]  # fmt: skip
    rows = np.repeat(one.rows, 4, axis=0), np.repeat(two.rows, 4, axis=0)
    left = np.array([gram_cka(*(np.delete(z, slice(4 * i, 4 * i + 4), 0) for z in rows)) for i in range(30)])
    assert found.value == pytest.approx(gram_cka(*rows), abs=1e-12)
    assert found.se == pytest.approx(np.sqrt(29 / 30 * ((left - left.mean()) ** 2).sum()), abs=1e-12)
    assert (found.n, found.z) == (30, None)


def test_a_finer_grid_of_cells_is_averaged_as_torch_does():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((3, 49, 5))
    grid = torch.from_numpy(x).transpose(1, 2).unflatten(2, (7, 7))
    expected = torch.nn.functional.adaptive_avg_pool2d(grid, 4).flatten(2).transpose(1, 2).numpy()
    np.testing.assert_allclose(_averaged(x, 4), expected, atol=1e-12)


def test_other_measures_are_published_beside_cka(tmp_path):
    write_records(tmp_path / "measures.json", two_teachers(measures=("procrustes", "cca")).measured)
    found = measure_metrics(tmp_path / "measures.json", STUDENT)
    assert set(found) == {"sim/pooled/procrustes/gqa", "sim/pooled/cca/gqa"}
    assert measure_metrics(tmp_path / "none.json", STUDENT) == {}
