"""MLflow that is down, slow, locked, or opened eight times at once: the training goes on, and nothing is lost."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from kd_distill import shipping, tracking
from kd_distill.journal import Journal, read_journal
from kd_distill.shipping import Shipper, send

from .relay import Relay


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A database of its own, and impatient shippers."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(shipping, "SECONDS", 0.05)
    monkeypatch.setattr(shipping, "LONGEST_PAUSE", 0.2)
    forget()
    made, whole = [], Shipper.__init__
    monkeypatch.setattr(Shipper, "__init__", lambda self, path: (made.append(self), whole(self, path))[1])
    yield
    for shipper in made:  # a thread that lived on would write to the database of another test
        shipper.finish(30)
    forget()


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


def test_what_is_journalled_arrives_once_and_the_run_ends(tmp_path):
    tracking.client()
    journal = journal_at(tmp_path / "journal.jsonl")
    for step in range(1, 60):
        journal.metrics(step, {"train/loss": 1 / step, "train/lr": 0.1})
        time.sleep(0.005)
    journal.finish(kind="student", name="student-a", tags={})
    send(journal.path)
    assert_arrived(journal.path, "FINISHED")
    assert send(journal.path) == 0


def test_each_event_is_on_disk_before_the_training_goes_on(tmp_path, monkeypatch):
    synced = []
    whole = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), whole(fd)))
    journal = journal_at(tmp_path / "journal.jsonl")
    monkeypatch.setattr(journal, "_shipper", type("Nobody", (), {"wake": lambda self: None})())
    journal.metrics(1, {"train/loss": 1.0})
    assert synced[-1] == journal.path.stat().st_size


def test_steps_that_a_killed_run_repeats_are_not_doubled(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = journal_at(path)
    for step in range(1, 31):
        journal.metrics(step, {"train/loss": float(step)})
    journal.close(30)  # the thread dies with its process
    send(path)  # arrived before the kill
    again = journal_at(path, resume_step=20)
    assert [e["step"] for e in read_journal(path)[1:]] == list(range(1, 21))
    for step in range(21, 41):
        again.metrics(step, {"train/loss": float(step)})
    send(path)
    assert_arrived(path, "RUNNING")


def test_a_run_that_was_half_created_is_completed(tmp_path):
    journal = journal_at(tmp_path / "journal.jsonl")
    experiment = tracking._experiment("distill")
    tracking.client().create_run(experiment, tags={"kd.key": journal.start["key"]}, run_name="student-a")
    journal.metrics(1, {"train/loss": 1.0})
    send(journal.path)
    assert_arrived(journal.path, "RUNNING")


def test_the_copy_of_an_export_names_its_model_and_does_not_end_the_run(tmp_path):
    journal = journal_at(tmp_path / "journal.jsonl")
    journal.metrics(1, {"train/loss": 1.0})
    journal.copy_with_model(tmp_path / "copy.jsonl", kind="student", name="student-a-e1", tags={"kd.epoch": "1"})
    assert [e["event"] for e in read_journal(tmp_path / "copy.jsonl")] == ["start", "metrics", "model"]
    assert [e["event"] for e in read_journal(journal.path)] == ["start", "metrics"]
    send(tmp_path / "copy.jsonl")
    assert_arrived(journal.path, "RUNNING")


def test_a_database_that_another_process_locks_for_a_while_costs_the_training_nothing(tmp_path):
    tracking.client()
    tracking._experiment("distill")
    journal = journal_at(tmp_path / "journal.jsonl")
    holder = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    slowest = 0.0
    for step in range(1, 40):
        begin = time.monotonic()
        journal.metrics(step, {"train/loss": float(step)})
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.01)
    assert slowest < 1.0  # the lock is held for longer than all of these together
    holder.execute("ROLLBACK")
    holder.close()
    journal.finish(kind="student", name="student-a", tags={})
    send(journal.path)
    assert_arrived(journal.path, "FINISHED")


@pytest.fixture
def server(tmp_path):
    """The port of a real MLflow server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    store = f"sqlite:///{tmp_path / 'server.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    command += ["--default-artifact-root", str(tmp_path / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as up:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield port
        os.killpg(up.pid, signal.SIGKILL)  # asked politely, it waits for open connections


@pytest.mark.faults
def test_a_server_that_refuses_then_swallows_then_works_gets_everything_once(tmp_path, server, monkeypatch):
    relay = Relay(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{relay.port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    forget()
    journal = journal_at(tmp_path / "journal.jsonl")
    step, slowest = 0, 0.0
    for mode, seconds in (("refuse", 2), ("swallow", 5), ("pass", 4), ("swallow", 3), ("refuse", 1), ("pass", 2)):
        relay.mode = mode
        relay.drop_all()  # connections of the mode before, some with an answer on its way
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            step += 1
            begin = time.thread_time()
            journal.metrics(step, {"train/loss": 1.0 / step, "train/lr": 0.1})
            slowest = max(slowest, time.thread_time() - begin)
            time.sleep(0.02)
    assert slowest < 0.1
    journal.finish(kind="student", name="student-a", tags={})
    forget()
    send(journal.path)
    assert_arrived(journal.path, "FINISHED")


@pytest.mark.faults
def test_a_process_whose_server_swallows_everything_ends_within_ten_seconds_and_sync_sends_it_later(tmp_path):
    hole = socket.create_server(("127.0.0.1", 0))
    program = f"""
import time
from kd_distill.journal import Journal
from pathlib import Path
journal = Journal.open(Path({str(tmp_path / "run" / "journal.jsonl")!r}), experiment="distill", name="student-a",
    params={{"lr": 1e-3}}, datasets=[{{"name": "pairs", "digest": "d" * 64, "path": "pairs"}}])
for step in range(1, 30):
    journal.metrics(step, {{"train/loss": 1.0 / step}})
    time.sleep(0.1)
begin = time.monotonic()
journal.finish(kind="student", name="student-a", tags={{}})
print(time.monotonic() - begin, flush=True)
"""
    address = f"http://127.0.0.1:{hole.getsockname()[1]}"
    begin = time.monotonic()
    environment = os.environ | {"MLFLOW_TRACKING_URI": address}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    ended = time.monotonic() - begin
    assert float(done.stdout) < 6
    assert "`sync` or `register` sends the rest" in done.stderr
    assert ended < 60
    from kd_distill.cli import app
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["sync", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "29" in result.output
    assert_arrived(tmp_path / "run" / "journal.jsonl", "FINISHED")


RACE = """
import os, sys
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store
from kd_distill.journal import Journal
from kd_distill.shipping import send

def one(path):
    journal = Journal.open(path, experiment="distill", name=path.parent.name, params={"lr": 1e-3})
    for step in range(1, 21):
        journal.metrics(step, {"train/loss": 1.0 / step})
    journal.finish(kind="student", name=path.parent.name, tags={})
    send(path)

for folder in sys.argv[1:]:
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    pids = []
    for i in range(8):
        pids.append(os.fork())
        if not pids[-1]:
            one(Path(folder, f"run-{i}", "journal.jsonl"))
            os._exit(0)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        sys.exit(f"{folder}: {codes}")
"""


@pytest.mark.faults
def test_eight_processes_on_a_fresh_database_all_arrive_in_twenty_races(tmp_path, monkeypatch):
    """Forked once MLflow is imported, so that all eight are at the empty database within milliseconds."""
    folders = [tmp_path / f"race-{i}" for i in range(20)]
    for folder in folders:
        folder.mkdir()
    subprocess.run([sys.executable, "-c", RACE, *map(str, folders)], check=True, timeout=1200)
    for folder in folders:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        forget()
        runs = tracking.client().search_runs([tracking._experiment("distill")])
        assert Counter(run.info.run_name for run in runs) == {f"run-{i}": 1 for i in range(8)}
        for run in runs:
            assert run.info.status == "FINISHED"
            assert len(tracking.client().get_metric_history(run.info.run_id, "train/loss")) == 20


def test_a_shipper_whose_journal_is_gone_ends_quietly(tmp_path):
    shipper = Shipper(tmp_path / "journal.jsonl")
    assert shipper.finish(5)


def test_sync_says_what_it_sent_and_which_folder_has_no_journal(tmp_path):
    from kd_distill.cli import app
    from typer.testing import CliRunner

    run = tmp_path / "runs" / "a"
    journal = journal_at(run / "journal.jsonl")
    event = {"event": "metrics", "step": 1, "time": 5, "values": {"train/loss": 2.0}}
    with journal.path.open("a") as file:
        file.write(json.dumps(event) + "\n")
    result = CliRunner().invoke(app, ["sync", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert "student-a: 1 events sent" in result.output
    assert_arrived(journal.path, "RUNNING")
    assert "student-a: 0 events sent" in CliRunner().invoke(app, ["sync", str(tmp_path / "runs")]).output
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["sync", str(tmp_path / "empty")])
    assert result.exit_code == 2
    assert "no journal.jsonl" in result.output
