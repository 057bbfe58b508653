import math

import pytest
from kd_analysis.grid import PRETRAINED, Grid, Place, Training
from kd_analysis.paper import published
from kd_analysis.results import (
    COLUMNS,
    DuplicateError,
    Result,
    over_seeds,
    read_csv,
    refuse_duplicates,
    with_averages,
    write_csv,
)
from kd_analysis.scores import InputError
from kd_analysis.tasks import TASKS


def result(**values):
    return Result(**({"teacher": "large", "task": "gqa", "value": 50.0} | values))


def test_a_table_survives_being_written_and_read(tmp_path):
    rows = published()
    write_csv(rows, tmp_path / "r.csv")
    again = read_csv(tmp_path / "r.csv")
    assert sorted(map(repr, again)) == sorted(map(repr, rows))
    assert (tmp_path / "r.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_columns_that_may_be_empty_may_be_absent(tmp_path):
    (tmp_path / "r.csv").write_text("teacher,task,value\nlarge,gqa,50\n")
    (row,) = read_csv(tmp_path / "r.csv")
    assert (row.teacher, row.value, row.metric, row.n) == ("large", 50.0, "score", 0)
    assert math.isnan(row.se)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teacher,task,value,valu\nl,gqa,1,2\n", "unknown columns valu"),
        ("teacher,task,value\nl,gqa,many\n", "line 2: value"),
        ("teacher,task,value\nl,gqa,1\n,gqa,1\n", "line 3: teacher"),
        ("teacher,task,value,n\nl,gqa,1,-4\n", "line 2: n"),
        ("task,value\ngqa,1\n", "line 2: teacher"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(tmp_path, text, words):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_csv(tmp_path / "r.csv")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(InputError, match="none"):
        read_csv(tmp_path / "none.csv")


def test_two_values_for_one_cell_are_refused_with_a_list():
    rows = [result(source="run a"), result(value=51.0, source="run b"), result(task="mmvp"), result(seed=1)]
    refuse_duplicates(rows[1:])
    with pytest.raises(
        DuplicateError, match=r"1 cells have several.*\n.*large, gqa, score: 50 \(run a\), 51 \(run b\)"
    ):
        refuse_duplicates(rows)
    with pytest.raises(DuplicateError):
        Grid(rows)


def test_averages_are_plain_means_with_mme_over_20_and_an_error():
    rows = [
        result(framework="f", llm="l", task=t, value=1000.0 if t == "mme_perception" else 30.0, se=2.0) for t in TASKS
    ]
    mean = with_averages(rows)[-1]
    assert mean.task == "average"
    assert mean.value == pytest.approx((50 + 15 * 30) / 16)
    assert mean.se == pytest.approx(math.sqrt(15 * 4 + 0.1**2) / 16)
    assert len(with_averages([*rows, result(framework="f", llm="l", task="average", value=9.0)])) == 17


def test_a_model_without_every_task_of_its_peers_has_no_average():
    rows = [result(framework="f", llm="l", teacher=t, task=k) for t, k in (("a", "gqa"), ("a", "mmvp"), ("b", "gqa"))]
    assert [r.teacher for r in with_averages(rows) if r.task == "average"] == ["a"]


def test_seeds_are_one_value_whose_error_holds_items_and_trainings():
    rows = [result(student="s", seed=i, value=v, se=2.0) for i, v in enumerate((10.0, 12.0, 14.0))]
    (mean,) = over_seeds(rows)
    assert mean.value == 12.0
    assert mean.se == pytest.approx(math.sqrt(4.0 + 4.0 / 3))
    assert mean.source == "mean of 3 seeds"


def test_the_main_condition_is_what_most_students_share():
    kd, mse = {"loss": "kd", "epochs": 32, "epoch": 32}, {"loss": "mse", "epochs": 32, "epoch": 32}
    rows = [result(student="s", teacher=t, framework="f", llm="q", task="average", **kd) for t in "abc"]
    rows += [result(student="s", teacher=t, framework="f", llm="q", task="average", **mse) for t in "ab"]
    rows += [result(student="s", teacher="a", framework="f", llm="p", task="average", **kd)]
    rows += [result(student="s", teacher="a", framework="f", llm="q", task="average", loss="kd", epochs=96, epoch=32)]
    main = Grid(rows).main()
    assert main.place == Place("f", "q")
    assert main.student == "s"
    assert main.training == Training("kd", "", 32, 32)


def test_a_table_without_students_has_no_main_student():
    grid = Grid([result(framework="f", llm="q")])
    assert (grid.main().student, grid.main().training) == ("", PRETRAINED)
    assert grid.teachers == ()
