"""The parameter sets under studies/ against the root's."""

from collections import defaultdict
from pathlib import Path

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
