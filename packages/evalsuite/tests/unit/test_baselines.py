"""What no model is needed for."""

import json
import random

import pytest
from kd_evalsuite.baselines import baselines
from kd_evalsuite.cli import app
from kd_evalsuite.data import load_task
from kd_evalsuite.records import Prediction
from kd_evalsuite.score import score_task
from kd_evalsuite.tasks import PROTOCOLS, TASKS
from typer.testing import CliRunner

from packages.evalsuite.tests.unit.test_score import write


def of(root, key, protocol="paper"):
    return baselines(load_task(root, key, pictures=False), protocol)


@pytest.mark.parametrize("key", TASKS)
def test_every_baseline_lies_between_nothing_and_the_best(key, benchmark_root):
    for protocol in PROTOCOLS:
        found = of(benchmark_root, key, protocol)
        for value in (found.random or 0, found.constant[1], found.frequent[1]):
            assert 0 <= value <= found.best


def test_constant_answers_score_what_the_benchmarks_mean_them_to(benchmark_root):
    assert of(benchmark_root, "mmvp").constant[1] == 0  # one of each pair is wrong
    assert of(benchmark_root, "mmvp").random == 25
    assert of(benchmark_root, "mme_perception").constant[1] == 100  # two categories at 50 + 0
    assert of(benchmark_root, "mme_perception").random == 150
    assert of(benchmark_root, "mmbench_en").constant[1] == 25
    assert of(benchmark_root, "mmbench_en", "lmms").constant[1] == 0  # circular
    assert of(benchmark_root, "gqa").random is None
    assert of(benchmark_root, "gqa").frequent == ("blue", 25)


def guess(rng, item):
    options = item.choices if item.choices == ("Yes", "No") else "ABCD"[: len(item.choices)]
    return Prediction(id=item.id, prediction=rng.choice(options), tokens=0, seconds=0)


def test_the_expected_guess_is_what_guesses_average_to(benchmark_root):
    """Over many guessing models the mean score is within four standard errors of the exact value."""
    rng = random.Random(0)
    for key in ("mmvp", "mmbench_en", "mme_perception"):
        data = load_task(benchmark_root, key, pictures=False)
        values = []
        for _ in range(200):
            said = {i.id: guess(rng, i) for i in data.items}
            values.append(score_task(data, said, "paper").scores[0].value)
        mean = sum(values) / len(values)
        spread = (sum((v - mean) ** 2 for v in values) / len(values) ** 2) ** 0.5
        exact = of(benchmark_root, key)
        scale = 1 if exact.best > 100 else 0.01
        assert abs(mean - exact.random * scale) < 4 * spread, key


def test_the_command_shows_a_blind_model_beside_them(benchmark_root, tmp_path):
    write(benchmark_root, tmp_path / "blind", lambda i: "A", blind=True, keys=["ai2d", "gqa"])
    command = ["baselines", "--data", str(benchmark_root), "--tasks", "ai2d,gqa"]
    done = CliRunner().invoke(app, [*command, "--blind", str(tmp_path / "blind"), "--json"])
    assert done.exit_code == 0, done.output
    found = {b["task"]: b for b in json.loads(done.stdout)}
    assert found["ai2d"]["blind"]["value"] == 25
    assert found["ai2d"]["random"] == 25
    assert CliRunner().invoke(app, command).exit_code == 0
    write(benchmark_root, tmp_path / "sighted", lambda i: "A", keys=["ai2d"])
    refused = CliRunner().invoke(app, [*command, "--blind", str(tmp_path / "sighted")])
    assert refused.exit_code == 2
