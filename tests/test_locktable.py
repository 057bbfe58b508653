"""DVC's table of locks after a kill: the dead are dropped from it, the living are waited for."""

import json
import os
import subprocess
import sys

import psutil
import pytest
from dvc.lock import LockError

from pipeline.locktable import BusyError, forget_ended, when_free
from pipeline.mend import mend


@pytest.fixture
def zombie():
    """The number of a process that has ended and that nobody has waited for."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.pid_exists(process.pid), "the test is of a number that is still there"
        yield process.pid


def table(folder, writer: int, *readers: int):
    """A table in which `writer` writes one file and `readers` read another."""
    folder.mkdir(parents=True, exist_ok=True)
    locks = {"write": {"/a": {"pid": writer, "cmd": "w"}}, "read": {"/b": [{"pid": r, "cmd": "r"} for r in readers]}}
    (folder / "rwlock").write_text(json.dumps(locks))
    return folder / "rwlock"


def test_locks_of_a_dead_process_whose_number_is_still_there_are_dropped_and_said(zombie, tmp_path):
    file = table(tmp_path / ".dvc" / "tmp", zombie, zombie)
    assert mend(tmp_path) == [".dvc/tmp/rwlock held locks of 1 processes that have ended; they are dropped."]
    assert json.loads(file.read_text()) == {"write": {}, "read": {}}
    assert mend(tmp_path) == []


def test_locks_of_the_living_stay(zombie, tmp_path):
    file = table(tmp_path, os.getpid(), zombie, os.getpid())
    assert forget_ended(tmp_path) == 1
    locks = json.loads(file.read_text())
    assert locks["write"]["/a"]["pid"] == os.getpid()
    assert [reader["pid"] for reader in locks["read"]["/b"]] == [os.getpid()]


def test_a_process_that_began_after_the_table_was_written_has_only_the_number_of_the_holder(tmp_path):
    file = table(tmp_path, os.getpid())
    before = psutil.Process().create_time() - 60
    os.utime(file, (before, before))
    assert forget_ended(tmp_path) == 1


def test_a_table_of_another_shape_is_removed_as_one_cut_short_is(tmp_path):
    table(tmp_path / ".dvc" / "tmp", 1).write_text('{"write": []}')
    assert mend(tmp_path) == [".dvc/tmp/rwlock was cut short and is removed."]


def test_a_lock_that_another_dvc_is_about_to_free_is_waited_for():
    answers = [LockError("held"), LockError("held"), "free"]

    def ask():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert when_free(ask) == "free"


def test_a_lock_that_another_dvc_keeps_is_an_error_that_names_it():
    def ask():
        raise LockError("'out' is busy, it is being blocked by:\n  (PID 7): dvc repro\n\nremove the table")

    with pytest.raises(BusyError, match=r"\(PID 7\): dvc repro\nWait for it, or stop it.$"):
        when_free(ask, seconds=0.1)
