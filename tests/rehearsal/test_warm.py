"""Commands of a server that has imported everything: they behave as if each had been started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.rehearsal.warm import ask

CODE = """
import os, sys, time
from pathlib import Path
from pipeline.rehearsal.warm import serve

def run(command, arguments):
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # as commands do; not possible where a pipe is taken for a file
    print(command, *arguments, os.getcwd(), os.environ.get("COLOUR"), sys.stdin.read(), flush=True)
    print("to stderr", file=sys.stderr)
    if command == "wait":
        Path(arguments[0]).write_text(str(os.getpid()))
        time.sleep(60)
    if command == "break":
        raise RuntimeError("broken")
    return 5

serve(Path(sys.argv[1]), run)
"""
ASK = """
import sys
from pathlib import Path
from pipeline.rehearsal.warm import ask
sys.exit(ask(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def socket(tmp_path_factory):
    where = Path("/tmp") / f"kd-warm-test-{os.getpid()}"  # noqa: S108  a short path, as sockets need
    with (tmp_path_factory.mktemp("server") / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-c", CODE, str(where)], cwd=ROOT, stdout=log, stderr=log)
        while not where.exists():
            time.sleep(0.01)
        yield where
        server.terminate()
        assert server.wait() == 0
    where.unlink()


def asked(where, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLOUR": "blue"}
    return subprocess.Popen(
        [sys.executable, "-c", ASK, str(where), *arguments], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_folder_environment_streams_and_exit_code_are_the_askers(socket, tmp_path):
    process = asked(socket, "say", "one", "two", cwd=tmp_path)
    out, err = process.communicate("typed")
    assert out == f"say one two {tmp_path} blue typed\n"
    assert err == "to stderr\n"
    assert process.returncode == 5


def test_a_command_that_breaks_ends_with_its_traceback_and_the_server_goes_on(socket):
    _, err = asked(socket, "break").communicate("")
    assert "RuntimeError: broken" in err
    assert asked(socket, "say").communicate("")[0].startswith("say")


def test_a_command_ends_with_who_asked_for_it(socket, tmp_path):
    process = asked(socket, "wait", str(tmp_path / "pid"))
    process.stdin.close()
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    number = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()
    until = time.monotonic() + 5
    while (alive := Path(f"/proc/{number}").exists()) and time.monotonic() < until:
        time.sleep(0.01)
    if alive:
        os.kill(number, signal.SIGKILL)
    assert not alive


def test_without_a_server_there_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        ask(tmp_path / "none", "say", [])
