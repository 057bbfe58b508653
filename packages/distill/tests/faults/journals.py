"""A journal, and whether MLflow has all of it."""

import json
from pathlib import Path

from kd_distill import tracking
from kd_distill.journal import Journal, read_journal


def forget() -> None:
    tracking.client.cache_clear()
    tracking._experiment.cache_clear()


def journal_at(path: Path, **more) -> Journal:
    return Journal.open(
        path,
        experiment="distill",
        name="student-a",
        params={"lr": 1e-3},
        datasets=[{"name": "pairs", "digest": "d" * 64, "path": "pairs"}],
        **more,
    )


def assert_arrived(path: Path, status: str) -> None:
    """The server has every value of the journal once, and the run's parameters and data."""
    events = read_journal(path)
    run = tracking.client().get_run(tracking.run_of(events[0]))
    assert run.info.status == status
    assert run.data.params == {"lr": "0.001"}
    assert [d.dataset.name for d in run.inputs.dataset_inputs] == ["pairs"]
    expected: dict[str, list] = {}
    for event in events:
        for key, value in event.get("values", {}).items():
            expected.setdefault(key, []).append((event["step"], value))
    assert expected
    for key, values in expected.items():
        history = tracking.client().get_metric_history(run.info.run_id, key)
        assert sorted((m.step, m.value) for m in history) == sorted(values)
    experiment = [run.info.experiment_id]
    assert len(tracking.client().search_runs(experiment)) == 1


def append(path: Path, step: int, seconds: int) -> None:
    event = {"event": "metrics", "step": step, "time": seconds, "values": {"train/loss": float(step)}}
    with path.open("a") as file:
        file.write(json.dumps(event) + "\n")
