"""The parameter sets under studies/ against the root's."""

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
    cells = [*section["from_scratch"].values(), *section["distilled"].values()]
    students = {
        (c["id"], (c.get("teacher") or "none").removesuffix(f"-s{c['seed']}")): set()
        for c in cells
        if c["kind"] == "student"
    }
    for cell in cells:
        if cell["kind"] == "student":
            students[cell["id"], (cell.get("teacher") or "none").removesuffix(f"-s{cell['seed']}")].add(cell["seed"])
    assert len(students) == 6
    assert all(seeds == {0, 1, 2} for seeds in students.values())
