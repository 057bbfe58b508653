"""Tests of one xdist_group share a process, and what they set up: the whole study at its smallest sizes, once."""

import subprocess
import sys

MARKED = """
import os, pathlib, pytest, time

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(6))
def test_who_runs_it(number):
    time.sleep(0.05)
    pathlib.Path(__file__).with_name(f"{os.getpid()}.pid").touch()
"""


def test_a_group_is_not_torn_apart(tmp_path):
    (tmp_path / "test_marked.py").write_text(MARKED)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "--rootdir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    assert len(list(tmp_path.glob("*.pid"))) == 1
