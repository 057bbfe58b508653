import pytest
from kd_analysis.compare import beside, plain, unmatched
from kd_analysis.grid import Grid
from kd_analysis.paper import published
from kd_analysis.results import Result
from kd_analysis.tasks import TASKS

TRAINED = {"student": "vit-t", "loss": "clip-kd", "dataset": "cc12m", "epochs": 32, "epoch": 32}


@pytest.fixture(scope="module")
def paper():
    return Grid(published())


def ours(**values):
    return Result(**({"teacher": "clip-vit-b", "task": "gqa", "value": 48.0, "se": 0.4, "n": 12578} | values))


def rows(table):
    return {(b.title, r.labels[0]): r for b in table.blocks for r in b.rows}


def test_ours_stands_beside_the_papers_with_the_difference_and_whether_it_is_resolvable(paper):
    place = {"framework": "tinyllava", "llm": "qwen2-0-5b"}
    mine = [ours(**place, **TRAINED), ours(**place, **TRAINED, task="mmvp", value=4.0, se=1.6)]
    found = rows(beside(Grid(mine), paper, {}))
    title = "TinyLLaVA, Qwen2-0.5B, ViT-T from CLIP-ViT-B, CLIP-KD, CC12M"
    gqa, mmvp = found[title, "GQA"], found[title, "MMVP"]
    assert gqa.cells["paper"].value == 46.41
    assert gqa.cells["difference"].value == pytest.approx(1.59)
    assert gqa.cells["difference"].half == pytest.approx(1.96 * (0.4**2 + 0.4447**2) ** 0.5, abs=2e-3)
    assert (gqa.words["resolvable"], mmvp.words["resolvable"]) == ("yes", "no")
    assert gqa.words["place"] == "Table 2, row 3"


def test_names_may_be_given(paper):
    mine = Grid([ours(framework="tinyllava", llm="my-qwen", **TRAINED)])
    assert beside(mine, paper, {}).empty
    assert unmatched(mine, paper, {}) == ["my-qwen"]
    assert not beside(mine, paper, {"my-qwen": "Qwen2-0.5B"}).empty


def test_zero_shot_scores_of_other_images_are_not_compared(paper):
    assert beside(Grid([ours(task="imagenet", n=960, **TRAINED)]), paper, {}).empty
    assert not beside(Grid([ours(task="imagenet", n=50_000, **TRAINED)]), paper, {}).empty


def test_averages_are_compared_over_the_same_benchmarks(paper):
    place = {"framework": "tinyllava", "llm": "qwen2-0-5b"}
    whole = [ours(**place, **TRAINED, task=task, n=0) for task in TASKS]
    for mine, compared in ((whole, True), (whole[:-1], False), ([], True)):
        average = ours(**place, **TRAINED, task="average", n=0)
        found = rows(beside(Grid([*mine, average]), paper, {}))
        assert ("Average" in {task for _, task in found}) is compared, len(mine)


def test_an_epoch_inside_a_schedule_is_not_compared_with_the_end_of_another(paper):
    inside = TRAINED | {"epochs": 96, "epoch": 32}
    assert beside(Grid([ours(task="imagenet", n=50_000, **inside)]), paper, {}).empty


def test_names_are_compared_by_letters_and_digits():
    assert plain("Qwen2-0.5B") == plain("qwen2-0-5b")
    assert plain("CC12M + Bunny Pretrain") == plain("cc12m-bunny-pretrain")
