"""Small real runs: a VLM learns a handful of samples, and goes on after a kill as if there had been none."""

import json
import shutil

import numpy as np
import pytest
import torch
from kd_vlm.assembly import assemble, standardise_input
from kd_vlm.corpus import prepare
from kd_vlm.data import read_conversations
from kd_vlm.encoder import load_encoder
from kd_vlm.evaluate import held_out
from kd_vlm.features import cache_features
from kd_vlm.material import without_images
from kd_vlm.pictures import decode_image
from kd_vlm.templates import IMAGE
from kd_vlm.train import batch_loss, parameter_groups, set_trainable

from packages.vlm.tests.faults.tiny import fit

pytestmark = pytest.mark.recipe

OPTIM = {"warmup_share": 0.1, "weight_decay": 0.0, "clip": 1.0, "beta2": 0.99, "precision": "fp32", "seed": 0}


def build(folder, lm_folder, world, tmp_path, **connector):
    encoder = load_encoder(folder)
    vlm = assemble(encoder, lm_folder, torch.Generator().manual_seed(0), **connector)
    captions, dialogues = (read_conversations(world / name) for name in ("captions.json", "mix.json"))
    first = prepare(vlm, captions, world / "images", template="plain", least_supervised_share=0.01)
    second = prepare(vlm, dialogues, world / "images", template="qwen2_base", least_supervised_share=0.01)
    paths = list(dict.fromkeys(p for c in (first, second) for sample in c.pictures for p in sample))
    options = {"root": tmp_path / "vision", "on_batch": lambda n: None}
    features = cache_features(encoder, paths, memory_limit=10**9, **options)
    standardise_input(vlm, features.sample())
    return vlm, first, second, features


def train(vlm, first, second, features, folder, on_step=lambda step: None, epochs=8):
    pretrain = {
        "batch_size": 4,
        "epochs": 4,
        "projector_lr": 1e-2,
        "language_model": "frozen",
        "language_model_lr": None,
    }
    finetune = {
        "batch_size": 4,
        "epochs": epochs,
        "projector_lr": 5e-3,
        "language_model": "trained",
        "language_model_lr": 5e-3,
    }
    for name, corpus, options in (("pretrain", first, pretrain), ("finetune", second, finetune)):
        where = {"checkpoint": folder / name, "save_every": 3, "on_step": on_step}
        fit(vlm, corpus, features, options | OPTIM, **where)


def test_a_tiny_vlm_learns_a_handful_of_samples_and_needs_the_picture(vit_folder, lm_folder, world, tmp_path):
    vlm, first, second, features = build(vit_folder, lm_folder, world, tmp_path)
    tower = {name: value.clone() for name, value in vlm.tower.state_dict().items()}
    losses = []
    train(vlm, first, second, features, tmp_path, lambda step: losses.append(step.loss), epochs=40)
    assert np.mean(losses[-5:]) < 0.2 < losses[0]
    seen = held_out(vlm, second, features)
    samples = [without_images(s) for s in second.samples]
    blind = prepare(vlm, samples, world / "images", template="qwen2_base", least_supervised_share=0.01)
    assert seen.accuracy > 0.9
    assert held_out(vlm, blind, features).accuracy < 0.75
    for name, value in vlm.tower.state_dict().items():
        assert torch.equal(value, tower[name]), f"{name} of the frozen tower moved"


def test_held_out_accuracy_is_what_generation_gives(vit_folder, lm_folder, world, tmp_path):
    vlm, first, second, features = build(vit_folder, lm_folder, world, tmp_path)
    train(vlm, first, second, features, tmp_path, epochs=6)
    one_turn = [s for s in second.samples if len(s.turns) == 1 and len(s.images) == 1]
    corpus = prepare(vlm, one_turn, world / "images", template="qwen2_base", least_supervised_share=0.01)
    generated = []
    for sample, (path,) in zip(corpus.samples, corpus.pictures, strict=True):
        question = sample.turns[0].question.replace(IMAGE, "").strip()
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        prompt = vlm.processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = vlm.processor(text=prompt, images=decode_image(path), return_tensors="pt")
        reply = vlm.model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
        text = vlm.processor.tokenizer.decode(reply, skip_special_tokens=True)
        generated.append(text == f" {sample.turns[0].answer}")
    assert held_out(vlm, corpus, features).right.tolist() == generated


class KilledError(Exception):
    pass


@pytest.mark.parametrize("kill_at", [2, 10, 20])
def test_a_killed_run_goes_on_bit_for_bit(vit_folder, lm_folder, world, tmp_path, kill_at):
    """Within pretraining, in its first finetuning steps, and later; `kill_at` counts the steps of both stages."""
    whole = build(vit_folder, lm_folder, world, tmp_path)
    train(*whole, tmp_path / "whole")
    seen = []

    def kill(step):
        seen.append(step)
        if len(seen) == kill_at:
            raise KilledError

    broken = build(vit_folder, lm_folder, world, tmp_path)
    with pytest.raises(KilledError):
        train(*broken, tmp_path / "broken", kill)
    again = build(vit_folder, lm_folder, world, tmp_path)
    train(*again, tmp_path / "broken")
    for name, value in whole[0].model.state_dict().items():
        assert torch.equal(again[0].model.state_dict()[name], value), name


def test_pretraining_moves_the_projector_alone(resnet_folder, lm_folder, world, tmp_path):
    vlm, first, _, features = build(resnet_folder, lm_folder, world, tmp_path)
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    options = {
        "batch_size": 4,
        "epochs": 1,
        "projector_lr": 1e-2,
        "language_model": "frozen",
        "language_model_lr": None,
        **OPTIM,
    }
    where = {"checkpoint": tmp_path / "x.safetensors", "save_every": 100, "on_step": lambda step: None}
    fit(vlm, first, features, options, **where)
    moved = {name for name, value in vlm.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"model.multi_modal_projector.linear_{i}.{p}" for i in (1, 2) for p in ("weight", "bias")}


def test_the_frozen_tower_stays_in_eval_mode(resnet_folder, lm_folder, world, tmp_path):
    """BatchNorm in train mode would move its statistics and so the features."""
    vlm, *_ = build(resnet_folder, lm_folder, world, tmp_path)
    set_trainable(vlm, "trained")
    assert vlm.model.training
    assert not any(module.training for module in vlm.tower.modules())
    assert not any(p.requires_grad for p in vlm.tower.parameters())


def test_the_loss_is_the_mean_over_supervised_tokens_of_the_whole_batch(vit_folder, lm_folder, world, tmp_path):
    vlm, _, second, features = build(vit_folder, lm_folder, world, tmp_path)
    with torch.no_grad():
        alone = [batch_loss(vlm, second, features, [i]) * second.encoded[i].n_supervised for i in range(6)]
        together = batch_loss(vlm, second, features, list(range(6)))
    n = sum(e.n_supervised for e in second.encoded[:6])
    torch.testing.assert_close(together, torch.stack(alone).sum() / n, atol=1e-5, rtol=1e-5)


def test_reruns_from_scratch_are_equal(vit_folder, lm_folder, world, tmp_path):
    states = []
    for name in ("a", "b"):
        run = build(vit_folder, lm_folder, world, tmp_path)
        train(*run, tmp_path / name, epochs=1)
        states.append(run[0].model.state_dict())
        shutil.rmtree(tmp_path / name)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert json.dumps(sorted(states[0])) == json.dumps(sorted(states[1]))


@pytest.mark.parametrize(("connector", "n_trained"), [("linear", 2), ("identity", 0)])
def test_an_identity_in_the_connector_is_not_trained(vit_folder, lm_folder, connector, n_trained):
    vlm = assemble(load_encoder(vit_folder), lm_folder, torch.Generator().manual_seed(0), connector=connector)
    set_trainable(vlm, "trained")
    moved = {n for group in parameter_groups(vlm, 1e-3, 1e-3) for n in group.parameters}
    assert len([n for n in moved if "multi_modal_projector" in n]) == n_trained
    assert not [n for n in moved if "linear_2" in n or "vision_tower" in n]
    set_trainable(vlm, "frozen")
    if connector == "identity":
        with pytest.raises(ValueError, match="has no weights"):
            parameter_groups(vlm, 1e-3, None)


def test_a_language_model_learns_behind_the_identity(vit_folder, lm_folder, world, tmp_path):
    """Tower and language model are both 32 wide; features pass as they are, and have no weights to be trained."""
    encoder = load_encoder(vit_folder)
    vlm = assemble(encoder, lm_folder, torch.Generator().manual_seed(0), connector="identity")
    samples = read_conversations(world / "mix.json")
    corpus = prepare(vlm, samples, world / "images", template="qwen2_base", least_supervised_share=0.01)
    paths = list(dict.fromkeys(p for sample in corpus.pictures for p in sample))
    features = cache_features(encoder, paths, root=tmp_path, memory_limit=10**9, on_batch=lambda n: None)
    before = {name: p.clone() for name, p in vlm.projector.named_parameters()}
    losses = []
    how = {"batch_size": 4, "epochs": 8, "projector_lr": 1e-3, "language_model": "trained", "language_model_lr": 5e-3}
    where = {"checkpoint": tmp_path / "run", "save_every": 100, "on_step": lambda step: losses.append(step.loss)}
    fit(vlm, corpus, features, how | OPTIM, **where)
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.equal(p, before[name]) for name, p in vlm.projector.named_parameters())


@pytest.mark.parametrize(("connector", "factor"), [("linear", None), ("pixel_shuffle", 2)])
def test_other_connectors_learn_in_the_same_stages(vit_folder, lm_folder, world, tmp_path, connector, factor):
    vlm, first, second, features = build(vit_folder, lm_folder, world, tmp_path, connector=connector, factor=factor)
    losses = []
    train(vlm, first, second, features, tmp_path, lambda step: losses.append(step.loss), epochs=12)
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    if connector == "linear":
        assert torch.equal(vlm.projector.linear_2.weight, torch.eye(32)), "still one linear layer"
