import json

import pytest
from kd_distill.lineage import go_on, inputs_of


def inputs(**recipe):
    return inputs_of(recipe={"lr": 1e-3, "steps": 10, "losses": {"task": 1.0}} | recipe, data="d" * 64)


def test_a_digest_is_of_all_values(tmp_path):
    assert inputs().digest == inputs().digest
    assert len({inputs().digest, inputs(lr=2e-3).digest, inputs(losses={"task": 2.0}).digest}) == 3


def test_the_same_inputs_go_on(tmp_path):
    go_on(tmp_path, inputs(), step=0, fork=False)
    again, forked = go_on(tmp_path, inputs(), step=5, fork=False)
    assert (again, forked) == (inputs(), False)


def test_changed_inputs_are_refused_with_what_changed(tmp_path):
    go_on(tmp_path, inputs(), step=0, fork=False)
    with pytest.raises(ValueError, match=r"(?s)run of 5 steps.*recipe.lr: was 0.001, is 0.002\n.*--fork.*step 5"):
        go_on(tmp_path, inputs(lr=2e-3), step=5, fork=False)
    go_on(tmp_path, inputs(), step=5, fork=False)


def test_before_the_first_checkpoint_nothing_is_lost_and_they_may_change(tmp_path):
    go_on(tmp_path, inputs(), step=0, fork=False)
    changed, _ = go_on(tmp_path, inputs(lr=2e-3), step=0, fork=False)
    assert changed.changes == ()


def test_a_fork_goes_on_and_the_change_is_remembered(tmp_path):
    go_on(tmp_path, inputs(), step=0, fork=False)
    forked, new = go_on(tmp_path, inputs(lr=2e-3), step=5, fork=True)
    assert new
    assert forked.changes == ({"step": 5, "changed": {"recipe.lr": [1e-3, 2e-3]}},)
    again, new = go_on(tmp_path, inputs(lr=2e-3), step=7, fork=False)
    assert (again.changes, new) == (forked.changes, False)
    assert json.loads((tmp_path / "inputs.json").read_text())["changes"] == list(forked.changes)


def test_a_longer_run_goes_on_and_a_shorter_one_is_refused(tmp_path):
    go_on(tmp_path, inputs(), step=0, fork=False)
    longer, forked = go_on(tmp_path, inputs(steps=20), step=5, fork=False)
    assert longer.changes[0]["changed"] == {"recipe.steps": [10, 20]}
    assert not forked
    with pytest.raises(ValueError, match=r"recipe\.steps: was 20, is 10"):
        go_on(tmp_path, inputs(), step=5, fork=False)
