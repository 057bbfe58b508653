"""A run that starts from another model and keeps one of its towers."""

import pytest
from safetensors.torch import load_file

from packages.distill.tests.recipe import test_runs as runs
from packages.distill.tests.recipe.test_runs import cached, teacher  # noqa: F401  fixtures

pytestmark = pytest.mark.recipe
STUDENT = "student-vit--wide--clip-kd"


def test_a_frozen_tower_of_a_run_is_bit_equal_to_the_one_it_started_from(project, teacher, cached):  # noqa: F811
    first = runs.train_one(project, STUDENT, out="first")
    file = project / "params.yaml"
    text = file.read_text().replace("icl: 1}", "icl: 1}, freeze: [text]")
    file.write_text(
        text.replace("teacher: teacher-wide}", f"teacher: teacher-wide, seed: 5, init: {{model: {first}}}}}")
    )
    file.write_text(file.read_text().replace(f"{STUDENT}:", f"{STUDENT}-s5:"))
    second = runs.train_one(project, f"{STUDENT}-s5")
    before, after = (load_file(folder / "open_clip_model.safetensors") for folder in (first, second))
    same = {name for name in before if before[name].equal(after[name])}
    assert {name for name in before if not name.startswith("visual.")} - {"logit_scale"} <= same
    assert not {name for name in same if name.startswith("visual.") and before[name].ndim > 1}
