"""Compiled layers: the same losses, nothing compiled twice, checkpoints and resuming as without."""

from functools import partial

import pytest
import torch
from kd_vlm import train
from kd_vlm.attention import set_attention
from kd_vlm.checkpoint import Checkpoints
from kd_vlm.compiling import compiled_layers
from kd_vlm.lora import add_lora, merge
from kd_vlm.regimen import Regimen
from kd_vlm.schedule import Schedule
from safetensors import safe_open
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from packages.vlm.tests.faults.tiny import STAGE, build, fit, write_inputs

pytestmark = [pytest.mark.recipe, pytest.mark.xdist_group("compile")]

PACKED = STAGE | {"sampler": "packing", "micro_batch_size": 2, "batch_size": 2}  # rows of one sample and of two
COMPILED = PACKED | {"compile": True}
LORA = {"language_model": "lora", "micro_batch_size": 1}  # rows of one sample, so of one without a picture, too
GRAPHS = 4  # of a layer around the attention of packed rows: norm, projections; output, norm and MLP


@pytest.fixture
def make(tmp_path, vit_folder, lm_folder, world):
    """A tiny VLM of two alike layers, its conversations and features; the same at every call."""
    write_inputs(tmp_path / "inputs.json", encoder=vit_folder, lm=lm_folder, world=world)
    return lambda: build(tmp_path / "inputs.json")


@pytest.fixture
def counted(monkeypatch):
    """Every graph goes to a backend that counts and runs it as it was traced; inductor's code is timed elsewhere."""
    torch._dynamo.reset()
    counters.clear()
    counter = CompileCounter()
    monkeypatch.setattr(train, "compiled_layers", partial(compiled_layers, backend=counter))
    yield counter
    torch._dynamo.reset()


def losses(made, folder, how, *, on_step=lambda step: None, lora=None, **kept):
    """The loss of every step, and the weights at the end."""
    vlm, corpora, features = made
    adapted = add_lora(vlm.model, rank=4, alpha=8, dropout=lora, seed=0) if lora is not None else None
    steps = []

    def note(step):
        steps.append(step.loss)
        on_step(step)

    set_attention(vlm.model, "auto", how["precision"], packed=True)
    fit(vlm, corpora["finetune"], features, how, checkpoint=folder, on_step=note, **kept)
    if adapted is not None:
        merge(adapted)
    return steps, {name: value.clone() for name, value in vlm.model.state_dict().items()}


@pytest.mark.parametrize(("how", "lora"), [({}, None), (LORA, 0.0)])
def test_losses_are_the_eager_ones_and_nothing_is_compiled_after_the_first_step(make, tmp_path, counted, how, lora):
    """Rows of one length, with and without pictures, padded or full: one set of graphs serves all layers and steps.

    1e-5 is a hundred roundings of float32: the steps build on each other.
    """
    graphs = []
    eager, _ = losses(make(), tmp_path / "eager", PACKED | how, lora=lora)
    note = {"on_step": lambda step: graphs.append(counted.frame_count)}
    compiled, _ = losses(make(), tmp_path / "compiled", COMPILED | how, lora=lora, **note)
    assert compiled == pytest.approx(eager, rel=1e-5)
    assert len(graphs) == len(eager) > 10
    assert set(graphs) == {GRAPHS}
    (reason,) = counters["graph_break"]
    assert "differs from row to row" in reason, "the attention of packed rows, and nothing else"
    assert not counters["recompiles"]


@pytest.mark.parametrize(("how", "text_only"), [({}, {False}), (LORA, {True, False})])
def test_every_row_of_a_compiled_stage_has_one_shape(make, how, text_only):
    vlm, corpora, features = make()
    schedule = Schedule.of(corpora["finetune"], Regimen(**(COMPILED | how)), 1)
    share = schedule.share(0, vlm.processor.tokenizer.pad_token_id, features.of, None)
    batches = [share[i]["batch"] for i in range(len(share))]
    assert {tuple(batch.ids.shape) for batch in batches} == {(1, schedule.row_tokens)}
    assert {batch.text_only for batch in batches} == text_only
    assert len({batch.n_images for batch in batches}) > 1
    assert any(batch.n_tokens < schedule.row_tokens for batch in batches)


def test_what_is_looked_at_while_training_has_other_shapes_and_compiles_nothing(make, tmp_path, counted):
    seen = []

    def look(step, vlm):
        ids = torch.zeros(3, 5 + step, dtype=torch.long)
        with torch.no_grad():
            seen.append(vlm.model(input_ids=ids, use_cache=False).logits.shape[1])

    losses(make(), tmp_path, COMPILED, watch=look, watch_every=3)
    assert seen[:2] == [8, 11]
    assert counted.frame_count == GRAPHS


def test_a_compiled_stage_leaves_names_class_and_layers_as_they_were(make, tmp_path, counted):
    made = make()
    names, kind = set(made[0].model.state_dict()), type(made[0].model)
    steps, weights = losses(made, tmp_path, COMPILED)
    assert set(weights) == names
    assert type(made[0].model) is kind
    assert not any(module._compiled_call_impl for module in made[0].model.modules())
    with safe_open(Checkpoints(tmp_path).place(len(steps)) / "state.safetensors", framework="pt") as file:
        assert not [key for key in file.keys() if "_orig_mod" in key]  # noqa: SIM118


def killed_and_resumed(make, folder):
    """LoRA's dropout draws inside the compiled code."""

    def stop(step):
        if step.number == 5:
            raise KeyboardInterrupt

    whole, weights = losses(make(), folder / "whole", COMPILED | LORA, lora=0.2)
    with pytest.raises(KeyboardInterrupt):
        losses(make(), folder / "broken", COMPILED | LORA, lora=0.2, on_step=stop)
    rest, again = losses(make(), folder / "broken", COMPILED | LORA, lora=0.2)
    assert [loss.hex() for loss in rest] == [loss.hex() for loss in whole[4:]]
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_a_killed_run_goes_on_bit_for_bit(make, tmp_path, counted):
    killed_and_resumed(make, tmp_path)


@pytest.mark.faults
def test_inductors_code_trains_as_the_eager_one_and_a_killed_run_goes_on_bit_for_bit(make, tmp_path):
    """Fused loops sum in another order than the eager ones."""
    eager, _ = losses(make(), tmp_path / "eager", PACKED | LORA, lora=0.0)
    compiled, _ = losses(make(), tmp_path / "compiled", COMPILED | LORA, lora=0.0)
    assert compiled == pytest.approx(eager, rel=1e-5)
    killed_and_resumed(make, tmp_path)


def test_rows_that_cannot_be_equal_and_batches_of_many_shapes_are_refused(make, tmp_path):
    _, corpora, _ = make()
    with pytest.raises(ValueError, match=r"compile needs static shapes: sampler buckets .* set sampler: packing"):
        Regimen(**(STAGE | {"compile": True}))
    with pytest.raises(ValueError, match="too few for equal rows on 7 processes"):
        Schedule.of(corpora["finetune"], Regimen(**(COMPILED | {"batch_size": 14})), 7)
