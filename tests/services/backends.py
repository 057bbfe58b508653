"""PostgreSQL, an S3-compatible store and MLflow's server on loopback, each in a process of its own."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import free_port, running

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def postgres_folder() -> Path:
    """Where the programs of PostgreSQL are; a skip that says how to get them."""
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1]


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A fresh database; its address."""
    programs, data, port = postgres_folder(), folder / "postgres", free_port()
    as_owner: list[str] = []
    data.mkdir()
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(data, "postgres", "postgres")
        for parent in [folder, *folder.parents[:2]]:
            parent.chmod(parent.stat().st_mode | 0o011)
        as_owner = ["runuser", "-u", "postgres", "--"]
    subprocess.run(
        [*as_owner, str(programs / "initdb"), "-D", str(data), "-U", "kd", "--auth=trust"],
        check=True,
        capture_output=True,
    )
    command = [*as_owner, str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", ""]
    with running(command, port, folder / "postgres.log"):
        yield f"postgresql+psycopg2://kd@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[str]:
    """An S3-compatible server with the bucket `artifacts`; its address."""
    import boto3

    port = free_port()
    with running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, folder / "s3.log"):
        address = f"http://127.0.0.1:{port}"
        names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=address, **names).create_bucket(Bucket="artifacts")
        yield address


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """MLflow's server over both; its address, for MLFLOW_TRACKING_URI."""
    port = free_port()
    with postgres(folder) as database, object_store(folder) as store:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "2"]
        command += ["--artifacts-destination", "s3://artifacts", "--host", "127.0.0.1", "--port", str(port)]
        with running(command, port, folder / "server.log", MLFLOW_S3_ENDPOINT_URL=store, **KEYS):
            yield f"http://127.0.0.1:{port}"
