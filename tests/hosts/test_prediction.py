"""Predictions shared by two hosts: the scores of one, also where a host dies."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from .network import ends

pytestmark = [pytest.mark.hosts, pytest.mark.xdist_group("hosts")]
TASKS = "gqa,mme_perception,mmvp,mmmu"


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    what = ["run", "--model", str(model), "--tasks", TASKS, "--data", str(data), "--out", str(out), *more]
    return [sys.executable, "-m", "kd_evalsuite", *what, "--batch-size", "2"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, llava_folder, benchmark_root) -> Path:
    """The scores of one process on one host."""
    out = tmp_path_factory.mktemp("alone")
    done = subprocess.run(command(llava_folder, benchmark_root, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def start(hosts, out: Path, model: Path, data: Path) -> list[subprocess.Popen]:
    return [
        host.start(command(model, data, out, "--shard", f"{number}/2"), out.parent / f"{number}.log")
        for number, host in enumerate(hosts, 1)
    ]


def has_the_scores_of_one(out: Path, alone: Path) -> None:
    for name in ("scores.json", "items.jsonl", "manifest.json"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()


def test_two_hosts_share_the_items_and_the_table_is_that_of_one_byte_for_byte(
    hosts, tmp_path, alone, llava_folder, benchmark_root
):
    out = tmp_path / "out"
    assert ends(start(hosts, out, llava_folder, benchmark_root), 240) == [0, 0], (tmp_path / "2.log").read_text()
    has_the_scores_of_one(out, alone)


def test_a_host_that_dies_leaves_the_others_share_and_its_own_goes_on_later(
    hosts, tmp_path, alone, llava_folder, benchmark_root
):
    out = tmp_path / "out"
    first, _ = start(hosts, out, llava_folder, benchmark_root)
    until = time.monotonic() + 120
    while not list((out / "shards" / "2-of-2").glob("*.jsonl")):
        assert time.monotonic() < until, (tmp_path / "2.log").read_text()
        time.sleep(0.005)
    hosts[1].die()
    assert ends([first], 240) == [0]
    if (out / "scores.json").exists():
        pytest.fail("the second host had finished before it was killed; nothing was tested")
    assert "the other shares are not complete yet" in " ".join((tmp_path / "1.log").read_text().split())
    again = command(llava_folder, benchmark_root, out, "--shard", "2/2")
    assert ends([hosts[1].start(again, tmp_path / "2.log")], 240) == [0], (tmp_path / "2.log").read_text()
    has_the_scores_of_one(out, alone)
