"""The same parameters give the same bytes, and an interrupted run leaves the earlier world alone."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from world.build import PARTS, Job, build, check_replaceable

pytestmark = [pytest.mark.recipe, pytest.mark.xdist_group("world")]
REPOSITORY = Path(__file__).parents[3]
REFERENCE = json.loads((Path(__file__).parent.parent / "reference" / "digests.json").read_text())


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def run(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "world", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_two_workers_and_another_hash_seed_give_the_same_bytes(small_world, params_file, out):
    done = run("--params", str(params_file), "--out", str(out), "--set", "workers=2", hash_seed="123")
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(small_world)


def test_the_small_world_has_the_recorded_digests(small_world):
    """Written down once, so that a changed library, machine or line shows. Update the file when a change is meant."""
    found = digests(small_world)
    assert {name: found[name] for name in REFERENCE} == REFERENCE


def test_another_seed_gives_other_pictures(small_world, params_file, out):
    done = run("--params", str(params_file), "--out", str(out), "--set", "seed=8")
    assert done.returncode == 0, done.stderr
    assert digests(out)["pairs/00000.tar"] != digests(small_world)["pairs/00000.tar"]


def test_a_new_world_replaces_the_old_one_whole(small_params, out):
    (out / "pairs").mkdir(parents=True)
    (out / "pairs" / "00099.tar").write_text("old")
    list(build(small_params, out))
    assert sorted(path.name for path in out.iterdir()) == sorted(PARTS)
    assert not (out / "pairs" / "00099.tar").exists()
    assert parts_left(out) == []


def parts_left(out: Path) -> list[str]:
    """What lies beside the world, without the lock."""
    return [p.name for p in out.parent.iterdir() if p.suffix not in (".lock", ".yaml") and p != out]


def test_a_failed_run_leaves_the_old_world(small_params, out, monkeypatch):
    (out / "classes").mkdir(parents=True)
    (out / "classes" / "classnames.txt").write_text("old")

    def fail(root: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr("world.build.jobs", lambda params: [Job("fails", fail)])
    with pytest.raises(OSError, match="no space"):
        list(build(small_params, out))
    assert (out / "classes" / "classnames.txt").read_text() == "old"
    assert parts_left(out) == []


def test_a_folder_with_other_files_is_not_replaced(tmp_path, params_file):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="earlier world"):
        check_replaceable(tmp_path / "precious")
    done = run("--params", str(params_file), "--out", str(tmp_path / "precious"))
    assert done.returncode == 2
    assert (tmp_path / "precious" / "thesis.tex").exists()


def test_a_misspelt_key_is_refused_with_the_nearest_one(params_file, out):
    done = run("--params", str(params_file), "--out", str(out), "--set", "pairs.tran=5")
    assert done.returncode == 2
    assert "did you mean 'train'" in done.stderr
    assert not out.exists()


def test_a_dry_run_lists_the_parts_and_writes_nothing(params_file, out):
    done = run("--params", str(params_file), "--out", str(out), "--dry-run")
    assert done.returncode == 0
    assert "benchmarks/gqa" in done.stdout.splitlines()
    assert not out.exists()


def test_an_interrupted_run_exits_with_130_and_leaves_nothing(params_file, out):
    command = [sys.executable, "-m", "world", "--params", str(params_file), "--out", str(out), "--set", "workers=2"]
    command += ["--set", "pairs.train=100000"]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, start_new_session=True) as process:
        while not list(out.parent.glob("world.part/*")):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert parts_left(out) == []
    assert not out.exists()
