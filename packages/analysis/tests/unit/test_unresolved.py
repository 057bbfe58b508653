import json
import math
from dataclasses import replace

import pytest
from kd_analysis.claims import Resampling
from kd_analysis.findings import Settings, find, read_inputs

SETTINGS = Settings(Resampling(seed=0, n_bootstrap=200, level=0.95))


def told(root):
    found = find(*read_inputs([root / "zeroshot"], [root / "eval"], root / "cka"), SETTINGS)
    return [f"{one.what}. {one.why}" for one in found.unresolved]


def change(root, task, **values):
    """Set fields of one task's score in every VLM."""
    for path in (root / "eval").glob("*/scores.json"):
        whole = json.loads(path.read_text())
        for score in whole["scores"]:
            if score["benchmark"] == task:
                score.update(values)
        path.write_text(json.dumps(whole))


def test_a_task_where_nobody_is_above_chance_ranks_nobody(inputs):
    assert not any("Which encoder is better on" in line and "AI2D" in line for line in told(inputs))
    change(inputs, "ai2d", value=0.26, chance=0.25)
    (line,) = [line for line in told(inputs) if "Which encoder is better on" in line]
    assert "AI2D" in line


def test_a_constant_answer_is_named_with_its_models(inputs):
    change(inputs, "cvbench_3d", top_answer_share=0.99)
    (line,) = [line for line in told(inputs) if "One answer makes up 90 %" in line]
    assert line.startswith("CV-Bench 3D of vlm-")


def test_a_difference_that_was_resolved_is_not_listed(inputs):
    found = find(*read_inputs([inputs / "zeroshot"], [inputs / "eval"], inputs / "cka"), SETTINGS)
    from kd_analysis.unresolved import unresolved

    clear = [replace(c, estimate=replace(c.estimate, low=1.0, high=2.0), over_tasks=None) for c in found.answer]
    args = (found.study, clear, found.blind_by_task, found.trends, found.rows, found.chances, found.models)
    assert not any("would be missed" in one.why for one in unresolved(*args))


def test_what_is_equal_item_by_item_does_not_tell_what_could_have_been_found(inputs):
    found = find(*read_inputs([inputs / "zeroshot"], [inputs / "eval"], inputs / "cka"), SETTINGS)
    from kd_analysis.unresolved import unresolved
    from kd_analysis.words import caveats

    equal = [
        replace(c, estimate=replace(c.estimate, value=0.0, low=0.0, high=0.0), detectable=math.nan)
        for c in found.answer
    ]
    args = (found.study, equal, found.blind_by_task, found.trends, found.rows, found.chances, found.models)
    whys = [one.why for one in unresolved(*args)]
    assert "The two are equal item by item: more items are needed to tell anything." in whys
    said = caveats(equal, found.checks, found.study, [], has_cka=True)
    assert any("equal item by item" in line for line in said)
    assert not any("--" in line or "could have found a difference" in line for line in [*whys, *said])


@pytest.mark.parametrize(("teachers", "words"), [(2, "2 teachers have no rank correlation"), (3, "With 3 teachers")])
def test_few_teachers_have_no_relation(inputs, write_zeroshot, teachers, words):
    if teachers == 3:
        write_zeroshot(inputs / "zeroshot", {"teacher-middle": 1.0, "student-vit--middle--clip-kd": 0.3})
    assert any(words in line for line in told(inputs))
