"""A disk without room: the report that stood there stands as a whole, and the message and code say what to do."""

import hashlib
import resource

import pytest
from kd_analysis.cli import app
from typer.testing import CliRunner


@pytest.fixture
def full_disk():
    """Files cannot grow over 40 kB: the page is larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda full: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000 if full else soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tree(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_report_that_finds_no_room_leaves_the_one_before_whole_and_is_written_later(inputs, tmp_path, full_disk):
    out = tmp_path / "report"
    (tmp_path / "params.yaml").write_text("analysis: {n_bootstrap: 200}\n")
    command = ["report", "--params", str(tmp_path / "params.yaml"), "--out", str(out)]
    for name in ("zeroshot", "eval", "cka"):
        command += [f"--{name}", str(inputs / name)]
    assert CliRunner().invoke(app, command).exit_code == 0
    (out / "notes.txt").write_text("somebody's own")
    whole = tree(out)
    (out / "claims.csv").write_text("of an earlier report\n")
    before = tree(out)
    full_disk(True)
    said = CliRunner().invoke(app, command)
    full_disk(False)
    assert said.exit_code == 6, said.output
    assert str(out) in said.output
    assert "make room and run the same command again" in said.output
    assert tree(out) == before
    assert CliRunner().invoke(app, command).exit_code == 0
    assert tree(out) == whole
