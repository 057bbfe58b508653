"""A rank's share, a block of rows and a chunk of the towers change what is computed where, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kd_distill.losses import TERMS
from kd_distill.task import loss_and_gradients

from packages.distill.tests.reference.tiny import CASES, TEACHERS, batch_of, gradients, task_of, weights_of

HERE = Path(__file__).parent
# float64 has 16 digits; sums of a few thousand products in another order lose a few of them
EXACT = {"rtol": 1e-12, "atol": 1e-13}
OVER_RANKS = {"rtol": 1e-10, "atol": 1e-12}


def outcome(terms, *, chunk=None, **options) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    task = task_of(terms, **options)
    _, values = loss_and_gradients(task, batch_of(), weights_of(terms), step=3, chunk=chunk)
    return values, gradients(task)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("changed", [{"block": 3}, {"chunk": 3}, {"block": 2, "chunk": 5}], ids=str)
def test_blocks_of_rows_and_chunks_of_the_towers_give_the_full_batchs_loss_and_gradient(name, changed):
    torch.testing.assert_close(outcome((name,), **changed), outcome((name,)), **EXACT)


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_through_cut_embeddings_is_autograds_own(name):
    task = task_of((name,))
    value = task(batch_of(), step=3)[name]
    (value * weights_of((name,))[name]).backward()
    values, cut = outcome((name,))
    torch.testing.assert_close(values[name], value.detach(), **EXACT)
    torch.testing.assert_close(cut, gradients(task), **EXACT)


@pytest.mark.network
def test_two_ranks_give_the_loss_and_gradient_of_one_process(tmp_path):
    """The mean over ranks of values and gradients, for every term and option; one pair of processes for all."""
    from safetensors.torch import load_file

    out = tmp_path / "found.safetensors"
    command = [sys.executable, str(HERE / "two_ranks.py")]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path / "store"), str(out)]) for rank in range(2)]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    found = load_file(str(out))
    assert {found[f"collectives.{number}"].item() for number in range(len(CASES))} == {0, 1}  # embeddings, once
    for number, (terms, options) in enumerate(CASES):
        options = dict(options)
        chunk = options.pop("chunk", None)
        task = task_of(terms, **options)
        _, values = loss_and_gradients(task, batch_of(), weights_of(terms), step=3, chunk=chunk)
        expected = {f"term.{name}": value for name, value in values.items()}
        expected |= {f"grad.{name}": grad for name, grad in gradients(task).items()}
        expected |= {f"buffer.{name}": x for name, x in task.named_buffers() if "statistics" in name}
        got = {key.removeprefix(f"{number}."): x for key, x in found.items() if key.startswith(f"{number}.")}
        torch.testing.assert_close(got, expected, **OVER_RANKS, msg=lambda m, t=terms, o=options: f"{t} {o}: {m}")


def test_heads_of_both_teachers_receive_gradients_from_all_terms():
    _, grads = outcome(tuple(TERMS))
    layers = ("patch", "standardised", "standardised_patch", "fuse_image", "fuse_text", "cross_log_scale")
    for teacher in TEACHERS:
        for layer in layers:
            assert any(name.startswith(f"heads.{teacher.name}.{layer}") for name in grads), (teacher.name, layer)
