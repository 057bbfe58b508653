"""A small training that can be killed: each life is a fork of this process, so that a restart costs milliseconds."""

import io
import json
import os
import random
import signal
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from kd_distill import state as state_module
from kd_distill.checkpoint import Checkpoints
from kd_distill.models import build, preprocessing_of
from kd_distill.optim import Schedule, average_of, build_optimizer
from kd_distill.pairs import Pairs
from kd_distill.shards import PairShards
from kd_distill.state import TrainingState, parameters_hash
from kd_distill.task import DistillationTask
from kd_distill.train import Plan, train
from PIL import Image

STEPS, BATCH, PAIRS = 36, 8, 48
# patch_dropout draws from torch's global generator: what is not restored shows in the weights
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 16,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 4,
        "patch_dropout": 0.5,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 1, "layers": 1},
}


def write_pairs(folder: Path, n: int = PAIRS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for i in range(n):
            picture = io.BytesIO()
            Image.new("RGB", (20, 16), tuple(draw.randrange(256) for _ in range(3))).save(picture, "PNG")
            for suffix, content in (("png", picture.getvalue()), ("txt", f"{i}".encode())):
                member = tarfile.TarInfo(f"{i:05d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return folder


def tokenize(captions: list[str]) -> torch.Tensor:
    """A number in base 7, then the end token, which is the largest."""
    rows = [[1 + int(c) // 7, 1 + int(c) % 7, 49, 0, 0, 0, 0, 0] for c in captions]
    return torch.tensor(rows)


class RecordedPairs(Pairs):
    """Pairs that remember the keys of the step that was given last."""

    keys: tuple[str, ...] = ()

    def steps(self, *args, **kwargs):
        for batch in super().steps(*args, **kwargs):
            self.keys = batch.keys
            yield batch


def pairs_of(folder: Path) -> RecordedPairs:
    view = preprocessing_of(ARCHITECTURE)
    return RecordedPairs(PairShards(folder), view, tokenize, seed=0, views=2, crop_area=0.9)


def task_of(precision: str = "fp32") -> DistillationTask:
    view = preprocessing_of(ARCHITECTURE)
    return DistillationTask(build(ARCHITECTURE, 0), ["task"], student_width=16, preprocessing=view, precision=precision)


def state_of(task: DistillationTask, *, fp16: bool = False, ema: float | None = 0.9) -> TrainingState:
    optimizer = build_optimizer(task, lr=3e-3, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6)
    scaler = torch.amp.GradScaler("cpu", enabled=fp16, init_scale=1024.0)  # the usual 65536 overflows at first
    return TrainingState(task, optimizer, scaler, average_of(task.student, ema))


def plan_of(**changes) -> Plan:
    defaults = {"save_every_steps": 2, "log_every": 1}
    return Plan(Schedule(3e-3, 4, STEPS), BATCH, 0, 1.0, **(defaults | changes))


@dataclass(frozen=True)
class Life:
    """Where a run keeps its checkpoints, and the trace of all of its lives."""

    folder: Path
    pairs: RecordedPairs

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints")

    def live(self, **changes) -> str:
        """Train to the end in this process; gives the hash of the final weights."""
        task = task_of()
        state = state_of(task)
        with (self.folder / "trace").open("a") as trace:

            def log(step: int, values: dict[str, float]) -> None:
                line = {"step": step, "loss": values["train/loss"].hex(), "keys": self.pairs.keys}
                trace.write(json.dumps(line) + "\n")
                trace.flush()

            train(
                task,
                self.pairs,
                plan_of(**changes),
                weights=lambda step: {"task": 1.0},
                state=state,
                checkpoints=self.checkpoints,
                log=log,
                progress=lambda done: None,
            )
        (self.folder / "hash").write_text(parameters_hash(task) + parameters_hash(state.average))
        return (self.folder / "hash").read_text()

    def trace(self) -> list[dict]:
        lines = (self.folder / "trace").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]


def forked(work: Callable[[], object]) -> int:
    """The pid of a fork that does `work` and exits with 0, or with 1 where it raises."""
    pid = os.fork()
    if pid:
        return pid
    try:
        torch.set_num_threads(1)
        work()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def killed(pid: int, seconds: float) -> bool:
    """Kill a fork after `seconds`; False where it had ended before, successfully."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, "the life failed by itself"
            return False
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) != 0


def live_through(life: Life, kills: int, draw: random.Random, seconds: float) -> int:
    """Restart a run until it has been killed `kills` times or has ended; then let it end. How often killed."""
    life.folder.mkdir(parents=True, exist_ok=True)
    for done in range(kills):
        if not killed(forked(life.live), draw.uniform(0, seconds)):
            return done
    assert not killed(forked(life.live), 60)
    return kills


def live_twice(life: Life, *, restore_random: bool) -> None:
    """Kill a run after its first checkpoint, and let it go on to its end, with or without its generators."""
    life.folder.mkdir(parents=True, exist_ok=True)
    pid = forked(life.live)
    while not life.checkpoints.steps():
        time.sleep(0.001)
    assert killed(pid, 0)

    def go_on() -> None:
        if not restore_random:
            state_module._set_random_state = lambda states: None
        life.live()

    assert not killed(forked(go_on), 60)
