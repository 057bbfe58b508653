"""`make ui`: the MLflow UI on loopback, and where in it to look."""

import os
import sys
from pathlib import Path

from kd_distill.tracking import client, uri

PORT = 5000


def main() -> None:
    """Print deep links, then become MLflow's server: whatever ends this process ends that."""
    port = int(os.environ.get("PORT", PORT))
    address = f"http://127.0.0.1:{port}/#/experiments"
    for experiment in client().search_experiments():
        if experiment.name != "Default":
            number = experiment.experiment_id
            print(f"{experiment.name:10} {address}/{number}/runs?workflowType=machine_learning")
            print(f"{'':10} {address}/{number}/models?workflowType=machine_learning")
    command = [str(Path(sys.executable).parent / "mlflow"), "ui", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    sys.stdout.flush()
    os.execve(command[0], [*command, "--backend-store-uri", uri()], environment)  # noqa: S606


if __name__ == "__main__":
    main()
