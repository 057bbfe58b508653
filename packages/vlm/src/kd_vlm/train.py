"""The two stages of a VLM: the projector alone, then projector and language model. The tower stays frozen."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kd_vlm import zero
from kd_vlm.assembly import Vlm
from kd_vlm.batch import collate, loss_sum, normalised, supervised_logits
from kd_vlm.checkpoint import Checkpoints
from kd_vlm.compiling import compiled_layers
from kd_vlm.corpus import Corpus
from kd_vlm.distributed import Ranks
from kd_vlm.features import FeatureCache
from kd_vlm.graph import TrainingGraph, keep_in_eval_mode
from kd_vlm.optim import Group, all_of
from kd_vlm.regimen import Regimen, Trained
from kd_vlm.schedule import Schedule
from kd_vlm.signals import stop_flag
from kd_vlm.state import load_state
from kd_vlm.trainer import StageTrainer, Upkeep

ALONE = Ranks()


def fit_stage(
    vlm: Vlm, corpus: Corpus, features: FeatureCache, how: Regimen, upkeep: Upkeep, ranks: Ranks = ALONE
) -> int:
    """Train one stage to its end, from its checkpoint where there is one; returns the number of its steps.

    Under torchrun all ranks call this.

    Args:
        vlm: Trained in place.
        corpus: What is trained on.
        features: The tower's output for its pictures.

    Raises:
        NonFiniteError: Before the update, if loss or gradient are not finite on any rank.
        Stopped: If a signal asked for it; the checkpoint stands.
        StorageError: If a checkpoint finds no room; the one before it stands.
        ValueError: If the checkpoint is of a later step than the stage's last.
    """
    schedule, checkpoints = Schedule.of(corpus, how, ranks.world), Checkpoints(upkeep.checkpoint)
    start = ranks.agreed((checkpoints.newest() or 0) if ranks.first else 0)
    check_not_past(upkeep.checkpoint, start, schedule.steps)
    set_trainable(vlm, how.language_model)
    trained = vlm
    if start < schedule.steps:
        if how.sharding(ranks.world):  # DeepSpeed casts and takes apart what it is given, so it gets a copy
            trained = replace(vlm, model=copy.deepcopy(vlm.model))
        _train(trained, schedule, features, how, upkeep, start, ranks)
        ranks.wait()
    if start == schedule.steps or trained is not vlm:
        groups = parameter_groups(vlm, how.projector_lr, how.language_model_lr)
        load_state(checkpoints.place(schedule.steps), all_of(groups), None)
    vlm.model.eval()
    return schedule.steps


def check_not_past(checkpoint: Path, done: int, steps: int) -> None:
    """Raise ValueError, saying what to do, if a stage has done more steps than its schedule has now."""
    if done > steps:
        raise ValueError(
            f"{checkpoint} has done {done} steps, the new schedule ends after {steps}: raise epochs of "
            f"{checkpoint.name} until it has as many, or remove that folder to train this stage anew."
        )


def _train(
    vlm: Vlm, schedule: Schedule, features: FeatureCache, how: Regimen, upkeep: Upkeep, start: int, ranks: Ranks
) -> None:
    """The steps from `start` on."""
    keep_in_eval_mode(vlm.tower)
    if how.gradient_checkpointing:
        vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
    elif vlm.model.is_gradient_checkpointing:  # the stage before asked for it
        vlm.model.gradient_checkpointing_disable()
    same_path = ranks.world > 1 or how.language_model == "frozen"
    blank = torch.zeros(1, *features.shape) if same_path else None
    data = schedule.share(ranks.rank, vlm.processor.tokenizer.pad_token_id, features.of, blank)
    with (
        stop_flag() as stop,
        torch.random.fork_rng(devices=[]),
        zero.believed_in() if how.sharding(ranks.world) else nullcontext(),
        compiled_layers(vlm.model, how.compile),
    ):
        StageTrainer(
            TrainingGraph(vlm, same_path=same_path),
            how,
            schedule,
            data,
            upkeep,
            groups=parameter_groups(vlm, how.projector_lr, how.language_model_lr),
            start=start,
            ranks=ranks,
            stop=stop,
        ).train()


def set_trainable(vlm: Vlm, language_model: Trained) -> None:
    """Gradients for the projector and, if asked for, the language model or its adapters.

    The tower has none and stays in eval mode.
    """
    vlm.model.train()
    vlm.tower.eval()
    for name, parameter in vlm.model.named_parameters():
        parameter.requires_grad_(language_model == "trained" or (language_model == "lora" and "lora_" in name))
    vlm.projector.requires_grad_(False)
    for parameter in vlm.connector_parameters().values():  # of some connectors, a layer is a fixed identity
        parameter.requires_grad_(True)
    vlm.tower.requires_grad_(False)


def parameter_groups(vlm: Vlm, projector_lr: float, language_model_lr: float | None) -> list[Group]:
    """What is trained, by its name in the checkpoint; tied weights once.

    Raises:
        ValueError: If that is nothing: the connector identity before a frozen language model.
    """
    projector = {n: p for n, p in vlm.model.named_parameters() if "multi_modal_projector" in n and p.requires_grad}
    groups = [Group(projector, projector_lr)] if projector else []
    if language_model_lr is not None:
        rest = {n: p for n, p in vlm.model.named_parameters() if p.requires_grad and n not in projector}
        groups.append(Group(rest, language_model_lr))
    if not groups:
        raise ValueError(f"The connector {vlm.connector} has no weights: train the language model in this stage too.")
    return groups


def batch_loss(
    vlm: Vlm, corpus: Corpus, features: FeatureCache, indices: Sequence[int], precision: str = "fp32"
) -> Tensor:
    """Cross-entropy in nats, averaged over the supervised tokens of the whole batch."""
    batch = collate([corpus.encoded[i] for i in indices], vlm.processor.tokenizer.pad_token_id)
    pictures = [path for i in indices for path in corpus.pictures[i]]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits, targets = supervised_logits(vlm, batch, features=features.of(pictures))
        return normalised(loss_sum(logits, targets), len(targets), "micro_batch_mean")
