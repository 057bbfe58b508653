"""What a run could not make is written with its reason, and read by the report."""

from pathlib import Path

import pytest
from kd_analysis.missing import read_missing
from kd_analysis.scores import InputError

from pipeline.missing import reason, write
from pipeline.order import Finished

LOG = """Running stage 'vlm@one':
> vlm run --cell one
loss 3.4
no space left on device

ERROR: failed to reproduce 'vlm@one': failed to run: vlm run --cell one, exited with 6
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "one.log").write_text(LOG)
    return tmp_path / "one.log"


def test_the_reason_is_what_the_stage_said_last(log):
    assert reason(log) == "no space left on device"


def test_a_stage_that_said_nothing_has_a_reason_too(tmp_path):
    assert reason(tmp_path / "absent.log") == "it said nothing"


def test_the_report_reads_what_the_runner_wrote_failures_first(tmp_path, log):
    held = Finished("studies/paper/dvc.yaml:predict@one", "held", 0.0, Path(), "one.json is not there")
    failed = Finished("studies/paper/dvc.yaml:vlm@one", "failed", 1.0, log)
    write(tmp_path / "missing.json", [held, Finished("world", "ran", 1.0, log), failed])
    first, second = read_missing(tmp_path / "missing.json")
    assert (first.cell, first.outcome, first.why) == ("one", "failed", "no space left on device")
    assert (second.stage, second.why) == ("studies/paper/dvc.yaml:predict@one", "one.json is not there")


def test_a_run_in_which_nothing_failed_removes_the_note(tmp_path, log):
    write(tmp_path / "missing.json", [Finished("a", "failed", 1.0, log)])
    write(tmp_path / "missing.json", [Finished("a", "ran", 1.0, log)])
    assert read_missing(tmp_path / "missing.json") == ()
    assert read_missing(None) == ()


def test_a_note_of_another_form_is_refused(tmp_path):
    (tmp_path / "missing.json").write_text('{"schema": "other", "missing": []}')
    with pytest.raises(InputError, match="kd-missing/1"):
        read_missing(tmp_path / "missing.json")
