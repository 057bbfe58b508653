"""Ranks that train together: forks that talk over gloo, and torchrun."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kd_distill import distributed
from kd_distill.checkpoint import Checkpoints
from kd_distill.distributed import Ranks, joined
from kd_distill.signals import Stopped
from kd_distill.state import parameters_hash
from kd_distill.tracking import IntegrityError
from kd_distill.train import NonFiniteError, train

from packages.distill.tests.faults.life import STEPS, forked, killed, pairs_of, plan_of, state_of, task_of, write_pairs

ROOT = Path(__file__).parents[4]
WORKER = "packages.distill.tests.faults.torchrun_worker"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return pairs_of(write_pairs(tmp_path_factory.mktemp("pairs")))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_ranks(work: Callable[[Ranks], object], world: int = 2) -> list[int]:
    """The pids of forks, each of which joins the others and does `work`."""
    port = free_port()

    def one(rank: int) -> None:
        os.environ.update(
            RANK=f"{rank}", LOCAL_RANK=f"{rank}", WORLD_SIZE=f"{world}", MASTER_ADDR="127.0.0.1", MASTER_PORT=f"{port}"
        )
        with joined() as ranks:
            work(ranks)

    return [forked(lambda rank=rank: one(rank)) for rank in range(world)]


def on_ranks(work: Callable[[Ranks], object], world: int = 2) -> None:
    for pid in start_ranks(work, world):
        assert not killed(pid, 60)


def train_on(ranks: Ranks, pairs, folder: Path, *, progress=lambda done: None, task=None, **plan) -> str:
    """Train a tiny student; writes what each rank saw, and the hash of its weights, to `folder`."""
    task = task or task_of()
    state = state_of(task)
    seen = []

    def note(done: int) -> None:
        seen.append(pairs.keys)
        progress(done)

    train(
        task,
        pairs,
        plan_of(**plan),
        weights=lambda step: {"task": 1.0},
        state=state,
        checkpoints=Checkpoints(folder / "checkpoints"),
        ranks=ranks,
        log=lambda step, values: None,
        progress=note,
    )
    (folder / f"{ranks.rank}.json").write_text(json.dumps({"hash": parameters_hash(task), "seen": seen}))
    return parameters_hash(task)


def results(folder: Path, world: int = 2) -> list[dict]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]


def test_gradients_become_their_mean_over_ranks_in_several_buckets(monkeypatch):
    monkeypatch.setattr(distributed, "BUCKET_BYTES", 100)

    def work(ranks):
        shapes = [(3,), (4, 5), (), (40,), (2, 2)]
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
        for i, parameter in enumerate(parameters[:-1]):
            parameter.grad = torch.full(parameter.shape, float(10 * i + ranks.rank))
        ranks.mean_gradients(parameters)
        for i, parameter in enumerate(parameters[:-1]):
            assert torch.equal(parameter.grad, torch.full(parameter.shape, 10 * i + 0.5))
        assert parameters[-1].grad is None

    on_ranks(work)


def test_flags_means_and_vectors_reach_all_ranks():
    def work(ranks):
        assert ranks.any(ranks.rank == 1, False, True) == (True, False, True)
        assert ranks.mean({"b": torch.tensor(float(ranks.rank)), "a": torch.tensor(3.0)}) == {"a": 3.0, "b": 0.5}
        assert [v.tolist() for v in ranks.gather(torch.tensor([ranks.rank, 7]))] == [[0, 7], [1, 7]]

    on_ranks(work)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_any_number_of_ranks_sees_the_same_global_batches(pairs, world):
    whole = [batch.keys for batch in pairs.steps(3, 9, batch_size=8, order_seed=0)]
    shares = [
        [b.keys for b in pairs.steps(3, 9, batch_size=8, order_seed=0, rank=r, world=world)] for r in range(world)
    ]
    assert [sum(parts, ()) for parts in zip(*shares, strict=True)] == whole


def test_ranks_that_cannot_share_a_batch_are_refused(pairs):
    with pytest.raises(ValueError, match="batch of 8 does not divide among 3"):
        next(pairs.steps(0, 1, batch_size=8, order_seed=0, rank=0, world=3))


def test_two_ranks_end_with_the_same_weights(pairs, tmp_path):
    on_ranks(lambda ranks: train_on(ranks, pairs, tmp_path))
    first, second = results(tmp_path)
    assert first["hash"] == second["hash"]
    assert not set(map(tuple, first["seen"])) & set(map(tuple, second["seen"]))


def test_ranks_that_begin_with_other_weights_are_found_after_the_first_step(pairs, tmp_path):
    def work(ranks):
        task = task_of()
        with torch.no_grad():
            task.student.visual.proj[0, 0] += ranks.rank
        with pytest.raises(IntegrityError, match="parameters differ after the first update"):
            train_on(ranks, pairs, tmp_path, task=task)

    on_ranks(work)


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_update(pairs, tmp_path):
    def work(ranks):
        from kd_distill import train as module

        whole, calls = module.loss_and_gradients, [0]

        def poison(task, batch, weights, **options):
            loss, terms = whole(task, batch, weights, **options)
            calls[0] += 1
            return (loss * float("nan") if ranks.rank == 1 and calls[0] == 4 else loss), terms

        module.loss_and_gradients = poison
        task = task_of()
        with pytest.raises(NonFiniteError, match=f"at step 3 .rank {ranks.rank}"):
            train_on(ranks, pairs, tmp_path, task=task)
        (tmp_path / f"hash-{ranks.rank}").write_text(parameters_hash(task))

    on_ranks(work)
    assert (tmp_path / "hash-0").read_text() == (tmp_path / "hash-1").read_text()
    assert Checkpoints(tmp_path / "checkpoints").newest().step == 2
    reports = [json.loads((tmp_path / "checkpoints" / f"{r}-nonfinite.json").read_text()) for r in range(2)]
    assert reports[0]["loss"] == pytest.approx(reports[0]["terms"]["task"])  # this rank's was finite
    assert reports[1]["loss"] != reports[1]["loss"]


def test_a_signal_to_one_rank_stops_all_after_the_same_step(pairs, tmp_path):
    def work(ranks):
        def ask(done):
            if ranks.rank == 1 and done == 5:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Stopped) as stopped:
            train_on(ranks, pairs, tmp_path, progress=ask, save_every_steps=None)
        assert stopped.value.exit_code == 143

    on_ranks(work)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [6]
    on_ranks(lambda ranks: train_on(ranks, pairs, tmp_path))
    whole = tmp_path / "whole"
    whole.mkdir()
    on_ranks(lambda ranks: train_on(ranks, pairs, whole))
    assert results(tmp_path)[0]["hash"] == results(whole)[0]["hash"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 4)])
def test_a_run_goes_on_with_another_number_of_ranks_over_the_same_batches(pairs, tmp_path, before, after):
    def ask(done):
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    def begin(ranks):
        with pytest.raises(Stopped):
            train_on(ranks, pairs, tmp_path, progress=ask)

    on_ranks(begin, before)
    on_ranks(lambda ranks: train_on(ranks, pairs, tmp_path), after)
    whole = [set(batch.keys) for batch in pairs.steps(6, STEPS, batch_size=8, order_seed=0)]
    seen = [set().union(*parts) for parts in zip(*(r["seen"] for r in results(tmp_path, after)), strict=True)]
    assert seen == whole


@pytest.mark.faults
@pytest.mark.parametrize("environment", [{}, {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}])
def test_torchrun_restarts_after_kills_at_four_points_and_ends_with_the_same_weights(tmp_path, environment):
    write_pairs(tmp_path / "pairs")
    hashes = []
    for name, kills in (("whole", ""), ("killed", "0:3,1:8,1:15,0:27")):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=4"]
        command += ["--monitor-interval=0.1", f"--master-port={free_port()}", "-m", WORKER]
        begin = time.monotonic()
        done = subprocess.run(
            [*command, str(tmp_path / "pairs"), str(folder), kills],
            env=os.environ | environment,
            cwd=ROOT,  # where WORKER is found
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        first, second = results(folder)
        assert first["hash"] == second["hash"]
        hashes.append(first["hash"])
        print(f"{name}: {time.monotonic() - begin:.1f} s")  # noqa: T201
    assert hashes[0] == hashes[1]
    assert len(list((tmp_path / "killed").glob("killed-*"))) == 4
