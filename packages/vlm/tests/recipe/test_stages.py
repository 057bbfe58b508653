"""One stage on the Trainer: equal to the plain loop, frozen where it must be, stopped before what cannot be mended."""

import json
import os
import resource
import signal

import pytest
import torch
from kd_vlm.batch import collate
from kd_vlm.checkpoint import Checkpoints, StorageError
from kd_vlm.graph import TrainingGraph, keep_in_eval_mode
from kd_vlm.loop import fit
from kd_vlm.lora import add_lora, merge, target_modules
from kd_vlm.optim import NonFiniteError
from kd_vlm.regimen import Regimen
from kd_vlm.schedule import Schedule
from kd_vlm.signals import Stopped
from kd_vlm.train import batch_loss, parameter_groups, set_trainable
from transformers import SwinConfig, SwinModel

from packages.vlm.tests.faults import tiny
from packages.vlm.tests.faults.tiny import STAGE, build, write_inputs

pytestmark = pytest.mark.recipe


@pytest.fixture
def make(tmp_path, vit_folder, resnet_folder, lm_folder, world):
    """A tiny VLM, its conversations and features; the same at every call."""

    def make(kind="vit"):
        encoder = {"vit": vit_folder, "resnet": resnet_folder}[kind]
        write_inputs(tmp_path / "inputs.json", encoder=encoder, lm=lm_folder, world=world)
        return build(tmp_path / "inputs.json")

    return make


def stage(vlm, corpora, features, folder, *, on_step=lambda step: None, corpus="finetune", **options):
    steps = []

    def note(step):
        steps.append(step)
        on_step(step)

    kept = {"save_every": options.pop("save_every", 2), "checkpoint": folder, "on_step": note}
    tiny.fit(vlm, corpora[corpus], features, STAGE | options, **kept)
    return steps


def test_the_trainer_gives_the_losses_of_the_plain_loop_on_the_same_plan(make, tmp_path):
    steps = stage(*make(), tmp_path / "trainer")
    vlm, corpora, features = make()
    corpus, plain = corpora["finetune"], []
    set_trainable(vlm, "trained")
    fit(
        parameter_groups(vlm, STAGE["projector_lr"], STAGE["language_model_lr"]),
        Schedule.of(corpus, Regimen(**STAGE), 1).plan,
        lambda samples: batch_loss(vlm, corpus, features, samples),
        checkpoint=tmp_path / "loop",
        on_step=plain.append,
        save_every=2,
        **{key: STAGE[key] for key in ("warmup_share", "weight_decay", "clip", "beta2")},
    )
    assert [s.number for s in steps] == [s.number for s in plain] == [1, 2, 3, 4, 5, 6]
    for mine, other in zip(steps, plain, strict=True):  # one multiplies by 1/n, the other divides by n
        assert mine.loss == pytest.approx(other.loss, rel=1e-6)
        assert mine.grad_norm == pytest.approx(other.grad_norm, rel=1e-5)
        assert mine.lr == other.lr


def test_accumulated_micro_batches_weigh_as_the_recipe_says(make, tmp_path):
    """Token by token they are the whole batch; a mean of means is another number where samples differ in length."""
    options = {"epochs": 1, "sampler": "random"}
    whole = stage(*make(), tmp_path / "whole", **options)
    tokens = stage(*make(), tmp_path / "tokens", micro_batch_size=1, **options)
    means = stage(*make(), tmp_path / "means", micro_batch_size=1, loss="micro_batch_mean", **options)
    assert len(tokens) == len(means) == len(whole) == 3
    assert tokens[0].loss == pytest.approx(whole[0].loss, rel=1e-5)
    assert tokens[0].grad_norm == pytest.approx(whole[0].grad_norm, rel=1e-4)
    vlm, corpora, features = make()
    first = Schedule.of(corpora["finetune"], Regimen(**(STAGE | options)), 1).plan[0]
    with torch.no_grad():
        alone = [batch_loss(vlm, corpora["finetune"], features, [i]).item() for i in first]
    assert means[0].loss == pytest.approx(sum(alone) / 4, rel=1e-5)
    assert means[0].loss != pytest.approx(whole[0].loss, rel=1e-3)


def test_a_frozen_tower_stays_as_it_is_while_the_trainer_trains(make, tmp_path):
    """BatchNorm's statistics and drop-path, measured before and after; the control shows what would happen."""
    vlm, corpora, features = make("resnet")
    pixels = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    buffers = {name: value.clone() for name, value in vlm.tower.named_buffers()}
    assert any("running_mean" in name for name in buffers)
    with torch.no_grad():
        before = vlm.tower(pixels).last_hidden_state
    modes = []
    stage(
        vlm, corpora, features, tmp_path, on_step=lambda step: modes.append([m.training for m in vlm.tower.modules()])
    )
    assert not any(any(mode) for mode in modes)
    vlm.model.train()
    assert vlm.model.training
    assert vlm.projector.training
    with torch.no_grad():
        after = vlm.tower(pixels).last_hidden_state
    assert torch.equal(before, after)
    assert all(torch.equal(value, buffers[name]) for name, value in vlm.tower.named_buffers())
    control, *_ = make("resnet")
    control.model.train()
    with torch.no_grad():
        control.tower(pixels)
    assert any(not torch.equal(value, buffers[name]) for name, value in control.tower.named_buffers())


def test_drop_path_of_a_swin_does_not_draw_in_a_tower_that_is_kept_in_eval_mode():
    shape = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
    pixels = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def drawn(keep):
        with torch.random.fork_rng():
            torch.random.default_generator.manual_seed(0)
            tower = SwinModel(SwinConfig(**shape, drop_path_rate=0.5))
            whole = torch.nn.ModuleDict({"tower": tower, "head": torch.nn.Linear(4, 4)})
            if keep:
                keep_in_eval_mode(tower)
            whole.train()
            assert whole["head"].training
            with torch.no_grad():
                return tower(pixels).last_hidden_state, tower(pixels).last_hidden_state

    assert torch.equal(*drawn(keep=True))
    assert not torch.equal(*drawn(keep=False)), "the control shows what would happen"


def test_a_micro_batch_without_pictures_takes_the_same_path_and_adds_exact_zeros(make):
    vlm, corpora, features = make()
    (text,) = [i for i, s in enumerate(corpora["finetune"].samples) if not s.images]
    batch = collate([corpora["finetune"].encoded[text]], vlm.processor.tokenizer.pad_token_id)
    set_trainable(vlm, "trained")
    losses, gradients = [], []
    for same_path in (False, True):
        vlm.model.zero_grad()
        graph = TrainingGraph(vlm, same_path=same_path)
        loss = graph(batch, None, torch.zeros(1, *features.shape))
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: None if p.grad is None else p.grad.clone() for n, p in vlm.model.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, alone in gradients[0].items():
        if "multi_modal_projector" in name:
            assert alone is None
            assert not gradients[1][name].any(), "zeros, and there"
        elif alone is not None:
            torch.testing.assert_close(gradients[1][name], alone, atol=1e-5, rtol=1e-4)


def test_lora_adapts_the_language_model_alone_and_merges_into_the_stock_model(make, tmp_path):
    vlm, corpora, features = make()
    kind, names = type(vlm.model), set(vlm.model.state_dict())
    start = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    adapted = add_lora(vlm.model, rank=4, alpha=8, dropout=0.1, seed=0)
    stage(vlm, corpora, features, tmp_path, language_model="lora", epochs=4)
    trained = {name for name, p in vlm.model.named_parameters() if p.requires_grad}
    assert {"lora_" in name and "language_model" in name for name in trained if "projector" not in name} == {True}
    batch = collate(corpora["finetune"].encoded[:3], vlm.processor.tokenizer.pad_token_id)
    pictures = features.of([p for ps in corpora["finetune"].pictures[:3] for p in ps])
    vlm.model.eval()
    graph = TrainingGraph(vlm, same_path=False)
    with torch.no_grad():
        before = graph(batch, pictures, None)
        merge(adapted)
        after = graph(batch, pictures, None)
    assert type(vlm.model) is kind
    assert set(vlm.model.state_dict()) == names
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    moved = {name for name, value in vlm.model.state_dict().items() if not torch.equal(value, start[name])}
    assert any("q_proj" in name for name in moved)
    assert not any("vision_tower" in name or "embed_tokens" in name or "norm" in name for name in moved)


def test_the_adapted_layers_are_those_of_the_language_model(make):
    import re

    vlm, *_ = make()
    pattern = re.compile(target_modules(vlm.model))
    hit = {name for name, _ in vlm.model.named_modules() if pattern.fullmatch(name)}
    assert len(hit) == 2 * 7
    assert all(".language_model." in name for name in hit)


def poison(features):
    def act(step):
        if step.number == 3:
            features.parts[0][:] = float("nan")

    return act


def test_a_loss_that_is_no_number_stops_before_the_update_and_names_the_samples(make, tmp_path):
    def die(step):
        if step.number == 3:
            raise KeyboardInterrupt

    clean = make()
    with pytest.raises(KeyboardInterrupt):
        stage(*clean, tmp_path / "clean", on_step=die)
    weights = clean[0].model.state_dict()
    vlm, corpora, features = make()
    with pytest.raises(NonFiniteError, match="loss is not finite at step 4"):
        stage(vlm, corpora, features, tmp_path / "run", on_step=poison(features))
    assert all(torch.equal(value, weights[name]) for name, value in vlm.model.state_dict().items())
    report = json.loads((tmp_path / "run" / "0-nonfinite.json").read_text())
    assert report["step"] == 4
    assert set(report["samples"]) <= {s.id for s in corpora["finetune"].samples}
    assert len(report["samples"]) == 4
    assert Checkpoints(tmp_path / "run").newest() == 2


def test_a_gradient_that_is_no_number_stops_before_the_update(make, tmp_path):
    vlm, corpora, features = make()
    weight = vlm.projector.linear_1.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weight.detach().clone()
    with pytest.raises(NonFiniteError, match="gradient norm is not finite at step 1"):
        stage(vlm, corpora, features, tmp_path)
    assert torch.equal(weight, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_gives_its_exit_code(make, tmp_path, number, code):
    def ask(step):
        if step.number == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="after step 3") as stopped:
        stage(*make(), tmp_path / "run", on_step=ask, save_every=100)
    assert stopped.value.exit_code == code
    assert Checkpoints(tmp_path / "run").newest() == 3
    whole = stage(*make(), tmp_path / "whole")
    rest = stage(*make(), tmp_path / "run")
    assert [s.loss.hex() for s in rest] == [s.loss.hex() for s in whole[3:]]


def test_fp16_without_a_gpu_is_refused_with_what_to_set(make, tmp_path):
    with pytest.raises(ValueError, match="needs a GPU; set precision: bf16 or fp32"):
        stage(*make(), tmp_path, precision="fp16")


def test_a_file_system_that_is_full_keeps_the_last_good_checkpoint(make, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(step):
        if step.number == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(StorageError, match="The checkpoint before it stands"):
            stage(*make(), tmp_path / "run", on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Checkpoints(tmp_path / "run").newest() == 2
    assert len(stage(*make(), tmp_path / "run")) == 4, "and the run goes on from it"


@pytest.mark.parametrize("sampler", ["random", "packing"])
def test_text_alone_before_a_frozen_language_model_is_a_step_without_a_gradient(make, tmp_path, sampler):
    vlm, corpora, features = make()
    frozen = {"language_model": "frozen", "language_model_lr": None, "batch_size": 1, "epochs": 1, "sampler": sampler}
    steps = stage(vlm, corpora, features, tmp_path, **frozen)
    without = [step for step in steps if step.grad_norm == 0]
    assert len(without) == corpora["finetune"].has_image.count(False) == 1
    assert without[0].loss > 0


def test_gradient_checkpointing_of_one_stage_ends_with_it(make, tmp_path):
    vlm, corpora, features = make()
    frozen = {"language_model": "frozen", "language_model_lr": None, "corpus": "pretrain", "epochs": 1}
    stage(vlm, corpora, features, tmp_path / "pretrain", gradient_checkpointing=True, **frozen)
    seen = []
    stage(
        vlm,
        corpora,
        features,
        tmp_path / "finetune",
        epochs=1,
        on_step=lambda step: seen.append(vlm.model.is_gradient_checkpointing),
    )
    assert seen == [False] * 3
