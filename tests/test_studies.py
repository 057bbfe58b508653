"""The parameter sets under studies/ against the root's."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


def parameters(path: str) -> dict:
    return YAML(typ="safe").load(ROOT / path)


def test_the_study_over_seeds_trains_by_the_demos_recipes():
    assert (
        parameters("studies/seeds/params.yaml")["distill"]["recipes"] == parameters("params.yaml")["distill"]["recipes"]
    )


def test_the_study_over_seeds_has_every_student_under_three_seeds():
    section = parameters("studies/seeds/params.yaml")["distill"]
    seeds = defaultdict(set)
    for cell in [*section["from_scratch"].values(), *section["distilled"].values()]:
        if cell["kind"] == "student":
            teacher = (cell.get("teacher") or "none").removesuffix(f"-s{cell['seed']}")
            seeds[cell["id"], teacher].add(cell["seed"])
    assert len(seeds) == 2 * 3
    assert set(map(frozenset, seeds.values())) == {frozenset({0, 1, 2})}


@pytest.mark.parametrize("file", ["dvc.yaml", *(f"studies/{s}/dvc.yaml" for s in ("paper", "paper/bunny", "sound"))])
def test_a_vlm_is_out_of_date_when_its_recipe_changes(file):
    bodies = [stage.get("do", stage) for stage in parameters(file)["stages"].values()]
    trainings = [body for body in bodies if re.search(r"vlm}? run ", str(body["cmd"]))]
    assert len(trainings) == 1
    assert "'vlm.recipes" in str(trainings[0]["params"])
