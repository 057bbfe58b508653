"""MLflow's server that refuses, swallows or works; eight processes at an empty database."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest
from kd_distill import tracking
from kd_distill.shipping import send

from packages.distill.tests.faults.journals import assert_arrived, forget, journal_at
from packages.distill.tests.faults.relay import Relay

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.faults]


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
