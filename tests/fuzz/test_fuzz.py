"""The pipeline's targets, and the harness itself: it catches every promise that a reader breaks."""

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from contract.fuzz.harness import Finding, Target, attempt, found_by, made_up, smallest, try_examples
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_bytes_give_a_value_or_an_error(target, tmp_path):
    assert try_examples(target, tmp_path, examples=10) >= len(target.seeds)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_inputs_are_such_that_a_target_which_may_refuse_nothing_is_caught(target, tmp_path):
    with pytest.raises(Finding):
        try_examples(replace(target, refused=lambda error: False), tmp_path, examples=100)


def reads(read) -> Target:
    return Target("made", "x.json", read, (b'{"a": [1, 2]}',), lambda error: isinstance(error, ValueError))


def other_error(path: Path) -> None:
    raise KeyError("a")


def no_name(path: Path) -> None:
    raise ValueError("it is wrong")


def runs_a_program(path: Path) -> None:
    subprocess.run(["true"], check=True)


def hides_that_it_runs_a_program(path: Path) -> None:
    try:
        os.system("true")  # noqa: S605
    except Exception:
        raise ValueError(path.name) from None


def writes_elsewhere(path: Path) -> None:
    (path.parents[3] / "elsewhere").write_text("")


def never_ends(path: Path) -> None:
    while True:
        pass


def takes_long(path: Path) -> None:
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass


@pytest.mark.parametrize(
    ("read", "signature"),
    [
        (other_error, "KeyError"), (no_name, "unnamed ValueError"), (runs_a_program, "starts subprocess"),
        (hides_that_it_runs_a_program, "starts os.system"), (writes_elsewhere, "writes elsewhere"),
        (never_ends, "slow"), (takes_long, "slow"),
    ],
)  # fmt: skip
def test_a_reader_that_breaks_a_promise_is_caught(read, signature, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(Finding, match=f"^{signature}"):
        attempt(replace(reads(read), seconds=0.2), b"1", tmp_path / "a" / "b")


def test_a_reader_that_keeps_its_promises_is_not(tmp_path):
    def kept(path: Path) -> None:
        (path.parent / "index").write_text("beside the file it may write")
        if path.read_bytes() == b"[":
            raise ValueError(f"{path}: expected JSON")

    assert attempt(reads(kept), b"1", tmp_path)
    assert not attempt(reads(kept), b"[", tmp_path)


def test_what_is_found_is_made_small(tmp_path):
    def fails_on_x(path: Path) -> None:
        if b"x" in path.read_bytes():
            raise KeyError("x")

    target = reads(fails_on_x)
    assert smallest(target, b"a" * 50 + b"x" + b"b" * 70, tmp_path) == b"x"
    assert found_by(target, b"a", tmp_path) is None


def test_inputs_are_the_same_every_time_and_differ(tmp_path):
    target = reads(lambda path: None)
    assert [made_up(target, n) for n in range(50)] == [made_up(target, n) for n in range(50)]
    assert len({made_up(target, n) for n in range(50)}) > 40
