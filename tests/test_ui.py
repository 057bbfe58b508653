"""`make ui`: MLflow's server on loopback, which ends with the process that was started."""

import signal
import sys
import time

import httpx
import pytest

from tests.loopback import free_port, running


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def waited(condition, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < until:
        time.sleep(0.1)
    return met


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_what_was_started(tmp_path, number):
    port, log = free_port(), tmp_path / "log"
    more = {"PORT": str(port), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    with running([sys.executable, "-m", "pipeline.ui"], port, log, **more) as process:
        assert waited(lambda: answers(port), 90), log.read_text()
        process.send_signal(number)
        process.wait(30)
        assert waited(lambda: not answers(port), 10)
