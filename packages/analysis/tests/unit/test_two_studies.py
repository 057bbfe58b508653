import math

import pytest
from kd_analysis.cli import app
from kd_analysis.results import Result, write_csv
from kd_analysis.scores import InputError
from kd_analysis.two_studies import pairs, side, tables
from typer.testing import CliRunner

TASKS = ("gqa", "mmvp")


def student(teacher, value, *, loss, llm="qwen", framework="tinyllava", arch="vit", n=1000, **more):
    place = {"framework": framework, "llm": llm} if llm else {}
    tasks = TASKS if llm else ("imagenet",)
    more = {"dataset": "cc12m", "epochs": 32, "epoch": 32} | more
    return [
        Result(**place, teacher=teacher, student=arch, loss=loss, task=t, value=value, se=0.3, n=n, **more)
        for t in tasks
    ]


def paper_like():
    return [
        *student("small", 40, loss="clip-kd"), *student("large", 41, loss="clip-kd"),
        *student("small", 30, loss="clip-kd", llm=""), *student("large", 28, loss="clip-kd", llm=""),
        *student("small", 39, loss="mse"),
    ]  # fmt: skip


def sound_like():
    found = []
    for seed, (low, high) in enumerate([(41, 44), (42, 46), (43, 48)]):
        found += student("small", low, loss="sound", framework="pooled", seed=seed)
        found += student("large", high, loss="sound", framework="pooled", seed=seed)
        found += student("small", 31, loss="sound", llm="", seed=seed)
    return [*found, *student("small", 35, loss="alone", llm="", seed=0)]


def both(one=(), two=(), **first):
    return side("sound", list(one) or sound_like(), first, {}), side("paper", list(two) or paper_like(), {}, {})


def by_name(found):
    return {t.name: {(b.title, *r.labels): r for b in t.blocks for r in b.rows} for t in found}


def test_cells_are_matched_whatever_recipe_made_them_and_seeds_are_taken_together():
    found = by_name(tables(*both(), {"family": ["small", "large"]}))
    gqa = found["beside_scores"]["qwen, vit from large", "GQA"]
    assert (gqa.cells["first"].value, gqa.cells["second"].value, gqa.cells["difference"].value) == (46, 41, 5)
    between = (44 - 46) ** 2 + (48 - 46) ** 2
    first = math.sqrt(between / 2 / 3 + 0.3**2)
    assert gqa.cells["first"].half == pytest.approx(1.959964 * first, rel=1e-6)
    assert gqa.cells["difference"].half == pytest.approx(1.959964 * math.hypot(first, 0.3), rel=1e-6)
    assert gqa.words["resolvable"] == "yes"
    assert found["beside_scores"].keys() == {
        ("qwen, vit from small", "GQA"), ("qwen, vit from small", "MMVP"),
        ("qwen, vit from small", "Average"), ("qwen, vit from large", "GQA"), ("qwen, vit from large", "MMVP"),
        ("qwen, vit from large", "Average"), ("vit from small", "Zero-shot"),
    }  # fmt: skip


def test_what_the_better_teacher_gains_is_compared_between_the_studies():
    gains = by_name(tables(*both(), {"family": ["small", "large"]}))["beside_gains"]
    assert gains.keys() == {("qwen, Average", "vit", "small to large")}  # one study lacks the zero-shot score
    cells = gains["qwen, Average", "vit", "small to large"].cells
    assert (cells["first"].value, cells["second"].value, cells["difference"].value) == (4, 1, 3)
    assert cells["second"].half == pytest.approx(1.959964 * 0.3, rel=1e-6)  # two averages of two tasks: 0.3


def test_columns_are_called_after_what_differs():
    assert [c.title for c in tables(*both(), {})[0].columns[:2]] == ["sound", "clip-kd"]
    alike = side("sound", paper_like(), {}, {}), side("paper", paper_like(), {}, {})
    assert [c.title for c in tables(*alike, {})[0].columns[:2]] == ["First", "Second"]


def test_students_may_be_chosen():
    one, two = side("a", paper_like(), {"loss": "MSE"}, {}), side("b", paper_like(), {}, {})
    assert {(r.loss, other.loss) for _, r, other in pairs(one, two)} == {("mse", "clip-kd")}


def test_scores_over_other_numbers_of_items_are_not_compared():
    fewer = student("small", 40, loss="clip-kd", n=999)
    one, two = both(two=[*fewer, *student("large", 41, loss="clip-kd")])
    assert {mine.teacher for _, mine, _ in pairs(one, two)} == {"large"}


def test_averages_over_other_benchmarks_are_not_compared():
    fewer = [r for r in paper_like() if r.task != "mmvp"]
    found = by_name(tables(*both(two=fewer), {"family": ["small", "large"]}))
    assert {labels for _, labels in found["beside_scores"]} == {"GQA", "Zero-shot"}
    assert {title for title, *_ in found["beside_averages"]} == {"Zero-shot"}


def test_columns_have_names_where_one_study_alone_names_its_data():
    nameless = [r for one in ("small", "large") for r in student(one, 40, loss="clip-kd", dataset="")]
    found = tables(*both(one=student("small", 41, loss="clip-kd"), two=nameless), {})
    assert [c.title for c in found[0].columns] == ["cc12m", "Second", "Difference"]


def test_names_may_differ():
    renamed = [r.model_copy(update={"llm": "Qwen2"}) for r in paper_like() if r.llm]
    two = side("paper", renamed, {}, {})
    assert not [where for where, *_ in pairs(side("sound", sound_like(), {}, {}), two) if where.llm]
    assert [where for where, *_ in pairs(side("sound", sound_like(), {}, {"qwen": "Qwen2"}), two) if where.llm]


def test_of_several_frameworks_the_one_of_most_cells_is_taken_and_otherwise_one_must_be_chosen():
    bunny = student("small", 50, loss="clip-kd", framework="bunny")
    taken = side("paper", [*bunny, *paper_like()], {}, {})
    assert {r.framework for tasks in taken.cells.values() for r in tasks.values()} == {"tinyllava", ""}
    third = student("large", 50, loss="clip-kd", framework="third", arch="other")
    more = student("large", 50, loss="clip-kd", framework="bunny", arch="other")
    with pytest.raises(InputError, match=r"has also (bunny|third); expected a framework to be chosen"):
        side("paper", [*paper_like(), *third, *more], {}, {})


@pytest.mark.parametrize("choice", [{"loss": "nix"}, {"framework": "nix"}, {"epochs": "96"}])
def test_a_choice_that_leaves_none_is_told_with_what_there_is(choice):
    with pytest.raises(InputError, match="loss clip-kd, mse; dataset cc12m; epochs 32; framework tinyllava"):
        side("paper", paper_like(), choice, {})


@pytest.fixture
def files(tmp_path):
    (tmp_path / "sound").mkdir()
    write_csv(sound_like(), tmp_path / "sound/results.csv")
    write_csv(paper_like(), tmp_path / "paper.csv")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_writes_a_table_a_file_and_all_on_one_page(files):
    found = call("beside", files / "sound", files / "paper.csv", "--out", files / "out")
    assert found.exit_code == 0, found.output
    names = {f"beside_{t}.{e}" for t in ("gains", "averages", "scores") for e in ("csv", "md", "tex", "html")}
    assert {p.name for p in (files / "out").iterdir()} == names | {"tables.html", "tables.md"}
    assert "What the better teacher gains in each: 1 of 1 differences are resolvable" in found.output
    assert "small to large" in (files / "out/tables.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--first", "lss=sound"], "expected KEY=VALUE with each of loss, dataset, epochs, framework"),
        (["--first", "loss=sound", "--first", "loss=alone"], "at most once"),
        (["--second", "loss=nix"], "expected scores of students with loss nix"),
    ],
)
def test_a_wrong_choice_is_refused(files, arguments, said):
    found = call("beside", files / "sound", files / "paper.csv", *arguments, "--out", files / "out")
    assert found.exit_code == 2
    assert said in found.output
    assert not (files / "out").exists()


def test_studies_without_a_common_cell_are_refused_with_the_cells_of_each(files):
    found = call("beside", files / "sound", "paper", "--out", files / "out")
    assert found.exit_code == 2
    assert "vit from large" in found.output
    assert "vitt from siglipso400m" in found.output
