"""The runner of the stages, killed, asked to stop and started twice, on a project whose stages only count."""

import os
import signal
import time

import pytest

from pipeline.mend import mend
from pipeline.tests.project import dvc, python

from .processes import alive, dvcs, polled, seconds_until_quiet, stages
from .toy import is_done, start, steps_done, toy

LONG = pytest.mark.faults  # each costs several starts of dvc


def wait_for_steps(project, n: int = 3) -> None:
    for _ in polled(300):
        if len(steps_done(project)) >= n:
            return
    raise AssertionError("no stage started")


def finish(project) -> str:
    said = python(project, "pipeline.demo", "--jobs", "2")
    assert is_done(project)
    return said


@pytest.mark.parametrize("victim", ["runner", pytest.param("dvc", marks=LONG), pytest.param("stage", marks=LONG)])
def test_whatever_is_killed_no_stage_goes_on_and_the_next_run_ends_well(victim, tmp_path):
    project = toy(tmp_path / "toy")
    with start(project) as runner:
        wait_for_steps(project)
        pid = {"runner": runner.pid, "dvc": dvcs(runner.pid)[0].pid, "stage": stages(project)[0].pid}[victim]
        os.kill(pid, signal.SIGKILL)
        runner.communicate(timeout=300)
    assert seconds_until_quiet(project, 10) < 5
    before = steps_done(project)
    time.sleep(0.3)
    assert steps_done(project) == before, "somebody goes on"
    finish(project)
    assert sorted(set(steps_done(project))) == sorted(f"{s} {n}" for s in ("first", "second") for n in range(1, 21))


@LONG
def test_a_killed_dvc_repro_leaves_no_stage_and_no_lock(tmp_path):
    project = toy(tmp_path / "toy")
    with start(project, "dvc", "repro") as command:
        wait_for_steps(project)
        command.kill()
    seconds_until_quiet(project, 10)
    assert "first" in dvc(project, "repro")
    assert is_done(project)


def test_control_a_stage_that_does_not_end_with_its_dvc_is_found_and_its_lock_refuses_a_second(tmp_path, monkeypatch):
    project = toy(tmp_path / "toy", steps=2000, options="--orphan")
    with start(project, "dvc", "repro") as command:
        wait_for_steps(project)
        command.kill()
    with pytest.raises(AssertionError, match="still at work"):
        seconds_until_quiet(project, 1)
    left = alive(stages(project))
    again = start(project, "work", "out/first", "20")
    _, said = again.communicate(timeout=30)
    assert again.returncode != 0
    holders = [f"being written by process {process.pid} " for process in left]  # a stage is a shell and its child
    assert any(holder in said for holder in holders), said
    for process in left:
        process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=LONG)])
def test_a_runner_that_is_asked_to_stop_lets_its_stages_save_and_says_how_to_go_on(number, code, tmp_path):
    project = toy(tmp_path / "toy", steps=400)
    with start(project) as runner:
        wait_for_steps(project, 7)
        runner.send_signal(number)
        _, said = runner.communicate(timeout=300)
    assert runner.returncode == code
    assert "`make demo` goes on where it stopped" in said
    assert not alive(stages(project)), "the runner waits for its stages"
    done = int((project / "runs" / "first").read_text())
    assert steps_done(project)[-1] == f"first {done}", "the last step is saved"


@LONG
def test_a_second_interruption_ends_stages_that_do_not_listen_at_once(tmp_path):
    project = toy(tmp_path / "toy", steps=2000)
    work = (project / "work.py").read_text()
    (project / "work.py").write_text(work.replace("if stop.number:\n            sys.exit(143)", "pass"))
    with start(project) as runner:
        wait_for_steps(project)
        runner.send_signal(signal.SIGINT)
        time.sleep(1)
        assert runner.poll() is None, "it waits for the stage"
        runner.send_signal(signal.SIGINT)
        runner.communicate(timeout=60)
    assert runner.returncode == 130
    seconds_until_quiet(project, 2)


def test_of_two_runs_at_once_the_second_says_that_one_is_running_and_changes_nothing(tmp_path):
    project = toy(tmp_path / "toy", options="--wait")
    with start(project) as first:
        for _ in polled(300):
            if alive(stages(project)):
                break
        second = start(project)
        _, said = second.communicate(timeout=300)
        assert second.returncode == 7
        assert f"by process {first.pid} on" in said
        (project / "go").touch()
        first.communicate(timeout=300)
    assert first.returncode == 0
    assert steps_done(project) == [f"{s} {n}" for s in ("first", "second") for n in range(1, 21)]


@LONG
def test_what_a_killed_dvc_left_half_written_is_mended_and_nothing_runs_again(tmp_path):
    project = toy(tmp_path / "toy")
    finish(project)
    whole = (project / "dvc.lock").read_bytes()
    before = steps_done(project)
    for length in (len(whole) // 3, len(whole) - 9):
        (project / "dvc.lock").write_bytes(whole[:length])
        (project / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"/a')
        finish(project)
        assert steps_done(project) == before
        assert "up to date" in dvc(project, "status")


@LONG
def test_whole_files_of_dvc_are_left_alone(tmp_path):
    project = toy(tmp_path / "toy", steps=1)
    finish(project)
    assert mend(project) == []
