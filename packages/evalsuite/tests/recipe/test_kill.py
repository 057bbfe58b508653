"""A process killed while it predicts, again and again, until it is done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kd_evalsuite.data import load_all
from kd_evalsuite.predictions import read_predictions

pytestmark = pytest.mark.recipe
ROOT = Path(__file__).resolve().parents[4]

PROGRAM = """
import contextlib, sys, time
from pathlib import Path
from kd_evalsuite.data import load_all
from kd_evalsuite.models.base import Reply
from kd_evalsuite.predict import manifest_of, predict
from kd_evalsuite.records import ModelRef

class Slow:
    def answer(self, requests, max_new_tokens):
        time.sleep(0.02)
        return [Reply("A", 1) for _ in requests]

@contextlib.contextmanager
def silent(name, total, done):
    yield lambda n: None

root, out = map(Path, sys.argv[1:])
tasks = load_all(root, ["mme_perception", "gqa", "mmmu", "mmvp"])
ref = ModelRef(kind="vlm", name="slow", sha256="0" * 64)
manifest = manifest_of(ref, tasks, protocol="paper", blind=False, limit=None)
predict(Slow, tasks, manifest, out, batch_size=1, progress=silent)
"""


def test_killed_many_times_it_loses_and_repeats_nothing(benchmark_root, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(benchmark_root), str(out)]
    kills = 0
    for _ in range(60):
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE)
        before = sum(len(f.read_bytes().splitlines()) for f in out.glob("*.jsonl"))
        while process.poll() is None:
            time.sleep(0.01)
            if sum(f.read_bytes().count(b"\n") for f in out.glob("*.jsonl")) >= before + 7:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
        process.wait()
        if process.returncode == 0:
            break
    assert process.returncode == 0, process.stderr.read().decode()
    assert kills >= 5
    for task in load_all(benchmark_root, ["mme_perception", "gqa", "mmmu", "mmvp"]):
        assert set(read_predictions(out / f"{task.key}.jsonl")) == {i.id for i in task.items}
