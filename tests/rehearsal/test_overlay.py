"""The rehearsal is the paper's grid at another size: the same cells, stages and kinds of models."""

from pathlib import Path

import pytest
from kd_distill.models import read_architecture
from kd_distill.teachers import TEACHERS, teachers_of
from kd_distill.towers import patch_grid

from pipeline.overlay import lay_over
from pipeline.plan import read
from pipeline.rehearse import RELEASED, small_params

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "studies" / "paper"
SMALL = small_params(STUDY, [STUDY / "rehearsal.yaml"])
FILES = ("params.yaml", "bunny/params.yaml")
SIZES = {  # all that may differ of a cell or recipe
    *("architecture", "batch_size", "micro_batch_size", "warmup", "precision", "attention", "projector_lr"),
    *("language_model_lr", "lora"),
}


def changed(before: dict, after: dict) -> set[str]:
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


@pytest.mark.parametrize("file", FILES)
def test_cells_are_the_papers(file):
    paper, small = read(STUDY / file), SMALL[file]
    assert list(small["vlm"]["cells"]) == list(paper["vlm"]["cells"])
    for name, cell in paper["vlm"]["cells"].items():
        assert dict(small["vlm"]["cells"][name]) == cell


def test_students_are_the_papers_but_for_the_size_of_their_architecture():
    paper, small = read(STUDY / "params.yaml"), SMALL["params.yaml"]
    lists = ("teachers", "students", "schedules", "mixed")
    assert {key: small["study"][key] for key in lists} == {key: paper["study"][key] for key in lists}
    assert list(small["distill"]["distilled"]) == list(paper["distill"]["distilled"])
    for name, cell in paper["distill"]["distilled"].items():
        assert changed(cell, small["distill"]["distilled"][name]) == {"architecture"}


def test_recipes_keep_losses_epochs_and_the_encoders_they_export():
    paper, small = read(STUDY / "params.yaml"), SMALL["params.yaml"]
    assert small["distill"]["recipes"].keys() == paper["distill"]["recipes"].keys()
    for name, recipe in paper["distill"]["recipes"].items():
        assert changed(recipe, small["distill"]["recipes"][name]) <= SIZES


@pytest.mark.parametrize(("file", "name"), [("params.yaml", "tinyllava-paper"), ("bunny/params.yaml", "bunny-paper")])
def test_recipes_of_vlms_keep_their_stages(file, name):
    from kd_vlm.config import Recipe, packaged_recipe

    paper = packaged_recipe(name).model_dump()
    small = Recipe.model_validate(dict(SMALL[file]["vlm"]["recipes"][name])).model_dump()
    for stage in ("pretrain", "finetune"):
        assert changed(paper.pop(stage), small.pop(stage)) <= SIZES
    assert paper == small


def test_everything_is_evaluated_and_compared_as_in_the_paper():
    paper, small = read(STUDY / "params.yaml"), SMALL["params.yaml"]
    assert changed(paper["evalsuite"], small["evalsuite"]) == {"limit", "device", "dtype", "zeroshot"}
    assert changed(paper["evalsuite"]["zeroshot"], small["evalsuite"]["zeroshot"]) == {"templates", "workers"}
    assert changed(paper["analysis"], small["analysis"]) == {"device", "max_images", "n_bootstrap"}


def test_small_teachers_are_of_the_papers_kinds():
    small = teachers_of(STUDY / "rehearsal" / "teachers.yaml")
    assert small.keys() == TEACHERS.keys()
    for name, large in TEACHERS.items():
        assert small[name] != large
        kept = ("label", "hub", "scale", "bias", "patch_size")
        assert [getattr(small[name], key) for key in kept] == [getattr(large, key) for key in kept]
        view, wanted = small[name].preprocessing, large.preprocessing
        assert (view.mean, view.std, view.interpolation, view.resize_mode) == (
            wanted.mean, wanted.std, wanted.interpolation, wanted.resize_mode
        )  # fmt: skip
        assert small[name].config.keys() == large.config.keys()
        for part in ("vision_cfg", "text_cfg"):
            assert small[name].config[part].keys() == large.config[part].keys()


@pytest.mark.parametrize("name", ["vit-t-16", "mobilevit-s", "swin-t", "convnext-t"])
def test_small_students_are_of_the_papers_kinds(name):
    import pipeline.rehearsal.towers  # noqa: F401  timm then knows the small towers

    small = read_architecture(str(STUDY / "rehearsal" / f"{name}.json"))
    large = read_architecture(name)
    assert small.keys() == large.keys()
    assert small["vision_cfg"].keys() == large["vision_cfg"].keys()
    assert patch_grid(small)[0] < patch_grid(large)[0]


def test_the_released_student_has_the_papers_name():
    assert any(RELEASED in cell["encoder"] for cell in SMALL["params.yaml"]["vlm"]["cells"].values())


def test_a_null_removes_and_a_star_stands_for_every_key():
    base = {"a-1": {"x": 1, "y": 1}, "a-2": {"x": 2}, "b": 3}
    lay_over(base, {"a-*": {"x": 0}, "b": None, "c": 4})
    assert base == {"a-1": {"x": 0, "y": 1}, "a-2": {"x": 0}, "c": 4}


def test_a_star_that_matches_nothing_is_an_error():
    with pytest.raises(KeyError, match="matches none of a"):
        lay_over({"a": 1}, {"b*": 2})
