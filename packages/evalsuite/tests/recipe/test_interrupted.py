"""Predictions that are killed, run out of disk, or are made by several processes at once."""

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kd_evalsuite.data import load_all
from kd_evalsuite.models.base import Reply
from kd_evalsuite.options import _code
from kd_evalsuite.predict import manifest_of, predict
from kd_evalsuite.predictions import LockedError, read_predictions
from kd_evalsuite.records import ModelRef
from kd_evalsuite.score import score_folder

from packages.evalsuite.tests.helpers.server import completion, served
from packages.evalsuite.tests.unit.test_predict import silent

pytestmark = pytest.mark.recipe
KEYS = ["mme_perception", "gqa", "mmmu", "mmvp", "scienceqa", "docvqa"]
REF = ModelRef(kind="vlm", name="slow", sha256="0" * 64)


class Slow:
    """Takes a moment; its replies depend on the question alone; now and then an item fails."""

    def __init__(self, seconds=0.002, failing=0.05):
        self.seconds, self.failing = seconds, failing
        self.draw = random.Random(os.getpid())

    def answer(self, requests, max_new_tokens):
        time.sleep(self.seconds * len(requests))
        if self.draw.random() < self.failing:
            raise ConnectionError("now and then")
        return [Reply("ABCD"[hashlib.sha256(r.text.encode()).digest()[0] % 4], 1) for r in requests]


def asked(tasks, out, model):
    manifest = manifest_of(REF, tasks, protocol="paper", blind=False, limit=None)
    return predict(lambda: model, tasks, manifest, out, batch_size=3, progress=silent)


def forked(work) -> int:
    """The process id of a child that does `work` and ends with 0, or 1 where it failed."""
    if child := os.fork():
        return child
    try:
        work()
    except BaseException:
        os._exit(1)
    os._exit(0)


def killed_until_done(tasks, out, kills, draw):
    """How often it was killed before it was left alone."""
    n = 0
    while n < kills:
        child = forked(lambda: asked(tasks, out, Slow()))
        time.sleep(draw.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        n += os.WIFSIGNALED(status)
        if os.WIFEXITED(status):  # it was faster: the end of the work is no longer a moment to be killed at
            for file in out.glob("*.jsonl"):
                file.unlink()
    return n


def the_table_is_that_of_an_undisturbed_run(root, tmp_path, kills):
    tasks = load_all(root, KEYS)
    asked(tasks, tmp_path / "calm", Slow(0, 0))
    assert killed_until_done(tasks, tmp_path / "killed", kills, random.Random(0)) == kills
    model = Slow(0)  # one for all tries: each new one would draw as the first did, and fail for ever where that fails
    while asked(tasks, tmp_path / "killed", model).failed:
        pass
    for task in tasks:
        ids = [i.id for i in task.items]
        lines = (tmp_path / f"killed/{task.key}.jsonl").read_text().splitlines()
        assert len(lines) == len(ids)
        assert set(read_predictions(tmp_path / f"killed/{task.key}.jsonl")) == set(ids)
    for name in ("calm", "killed"):
        score_folder(tmp_path / name, tmp_path / f"{name}-scores", load_all(root, KEYS, pictures=False))
    for file in ("scores.json", "items.jsonl", "manifest.json"):
        assert (tmp_path / "calm-scores" / file).read_bytes() == (tmp_path / "killed-scores" / file).read_bytes()


def test_killed_ten_times_it_loses_and_repeats_nothing_and_scores_the_same(benchmark_root, tmp_path):
    the_table_is_that_of_an_undisturbed_run(benchmark_root, tmp_path, 10)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(4))
def test_killed_fifty_times_it_loses_and_repeats_nothing_and_scores_the_same(benchmark_root, tmp_path, seed):
    the_table_is_that_of_an_undisturbed_run(benchmark_root, tmp_path, 50)


def test_a_full_disk_keeps_whole_lines_and_the_next_run_goes_on(benchmark_root, tmp_path):
    tasks = load_all(benchmark_root, KEYS)

    def confined():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            asked(tasks, tmp_path, Slow(0, 0))
        except OSError as error:
            os._exit(_code(error) or 1)

    _, status = os.waitpid(forked(confined), 0)
    assert os.waitstatus_to_exitcode(status) == 6
    found = (tmp_path / "mme_perception.jsonl").read_bytes()
    assert 0 < len(found) <= 3000
    assert found.endswith(b"\n")
    kept = len(read_predictions(tmp_path / "mme_perception.jsonl"))
    assert asked(tasks, tmp_path, Slow(0, 0)).asked == sum(len(t.items) for t in tasks) - kept


def test_of_two_processes_one_is_told_and_takes_over_when_the_other_is_killed(benchmark_root, tmp_path):
    tasks = load_all(benchmark_root, KEYS)
    child = forked(lambda: asked(tasks, tmp_path, Slow(5, 0)))
    try:
        while not (tmp_path / "manifest.json").exists():
            time.sleep(0.005)
        with pytest.raises(LockedError, match="Another process"):
            asked(tasks, tmp_path, Slow(0, 0))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert asked(tasks, tmp_path, Slow(0, 0)).asked == sum(len(t.items) for t in tasks)


def test_as_torchrun_starts_them_the_last_process_puts_together_and_scores(benchmark_root, tmp_path):
    with served(lambda text, nth: completion("A")) as server:
        command = [sys.executable, "-m", "kd_evalsuite", "run", "--model", server.url, "--tasks", "gqa,mmvp"]
        command += ["--data", str(benchmark_root), "--out", str(tmp_path)]
        ranks = [
            subprocess.Popen(command, env={**os.environ, "RANK": rank, "WORLD_SIZE": "2"}, stderr=subprocess.PIPE)
            for rank in ("0", "1")
        ]
        said = [rank.communicate(timeout=120)[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert sum(server.tries.values()) == 24
    assert len(read_predictions(Path(tmp_path / "gqa.jsonl"))) == 12
    assert (tmp_path / "scores.json").is_file()
