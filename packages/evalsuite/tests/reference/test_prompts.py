"""Prompts against the text that the public suites' own builders make."""

import json
from pathlib import Path

import pytest
from kd_evalsuite.tasks import task_named

from packages.evalsuite.tests.helpers.benchmarks import cell, write_jsonl

CASES = json.loads(Path(__file__).with_name("eval_prompts.json").read_text())["prompts"]
SUITES = {"cambrian": "cambrian", "lmms_eval": "lmms", "vlmevalkit": "vlmevalkit"}
TASK_OF = {"mme": "mme_perception", "seed": "seedbench_image", "cvbench": "cvbench_2d"}


def with_image(case: dict, folder: Path) -> dict:
    """The row as its dataset has it: the vectors leave out images and columns that no prompt shows."""
    (folder / "x.png").write_bytes(cell(0)["bytes"])
    image = {"mmmu": "image_1", "mmmu_open": "image_1"}.get(case["case"], "image")
    row = {**case["row"], image: ["x.png"] if case["case"] == "seed" else "x.png"}
    if case["case"] == "mmvp":
        row |= {"Index": 1, "Correct Answer": row["answer"]}
    if case["case"] == "gqa":
        row |= {"id": "1"}
    return row


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("case", CASES, ids=[c["case"] for c in CASES])
def test_prompt_is_what_the_suite_builds(case, suite, tmp_path):
    if suite not in case:
        assert suite == "vlmevalkit"  # which has no builder of its own for these rows
        return
    key = TASK_OF.get(case["case"], case["case"].removesuffix("_hint").removesuffix("_open").removesuffix("_free"))
    task = task_named(key)
    write_jsonl(tmp_path / "rows.jsonl", [with_image(case, tmp_path)])
    (item,) = task.read(tmp_path, True)
    prompt = task.prompts[SUITES[suite]](item)
    assert (prompt.marked if suite == "cambrian" else prompt.text) == case[suite]
    assert len(prompt.pictures) == 1


def test_every_task_has_every_prompt_set():
    from kd_evalsuite.tasks import EVERY, PROTOCOLS

    for task in EVERY.values():
        assert set(task.prompts) == set(PROTOCOLS.values()), task.key
