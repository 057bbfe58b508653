"""The two stages of a VLM: the projector alone, then projector and language model. The tower stays frozen."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kd_vlm import zero
from kd_vlm.arguments import Numbers
from kd_vlm.assembly import Vlm
from kd_vlm.batch import LossNormalisation, collate, collate_packed, loss_sum, normalised, supervised_logits
from kd_vlm.checkpoint import Checkpoints
from kd_vlm.corpus import Corpus
from kd_vlm.distributed import Ranks
from kd_vlm.features import FeatureCache
from kd_vlm.graph import TrainingGraph, keep_in_eval_mode
from kd_vlm.optim import Group, Step, all_of
from kd_vlm.plan import MicroBatch, MicroBatches, n_steps, share_of
from kd_vlm.sampling import Plan, Sampler, batch_plan
from kd_vlm.signals import stop_flag
from kd_vlm.state import load_state
from kd_vlm.trainer import StageTrainer

Trained = Literal["frozen", "trained", "lora"]


def fit_stage(
    vlm: Vlm,
    corpus: Corpus,
    features: FeatureCache,
    *,
    batch_size: int,
    epochs: float,
    projector_lr: float,
    language_model: Trained,
    language_model_lr: float | None,
    warmup_share: float,
    weight_decay: float,
    clip: float | None,
    beta2: float,
    precision: str,
    seed: int,
    checkpoint: Path,
    save_every: int,
    on_step: Callable[[Step], None],
    micro_batch_size: int | None = None,
    sampler: Sampler = "buckets",
    loss: LossNormalisation = "global_tokens",
    zero_stage: int = 0,
    gradient_checkpointing: bool = False,
    tf32: bool = False,
    workers: int = 0,
    ranks: Ranks = Ranks(),  # noqa: B008  frozen
    watch: Callable[[int, Vlm], None] | None = None,
    watch_every: int | None = None,
) -> int:
    """Train one stage to its end, from `checkpoint` where there is one; returns the number of its steps.

    Under torchrun all ranks call this.

    Args:
        vlm: Trained in place.
        corpus: What is trained on.
        features: The tower's output for its pictures.
        batch_size: Samples of one step, over all ranks and micro-batches.
        micro_batch_size: Samples of one forward on one rank; None: a rank's whole share.
        language_model: What of it is trained; "lora" after `lora.add_lora`.
        seed: Of the order of the data and of dropout; both are functions of it and of the step.
        checkpoint: Folder of the stage's checkpoints.
        on_step: Called on the first rank after every step.
        watch: Called on all ranks every `watch_every` steps with the model as it is.
        zero_stage: See `arguments.Numbers`, as for the other numbers. One process alone shards nothing: it trains
            without DeepSpeed.

    Raises:
        NonFiniteError: Before the update, if loss or gradient are not finite on any rank.
        Stopped: If a signal asked for it; the checkpoint stands.
        StorageError: If a checkpoint finds no room; the one before it stands.
    """
    micro, accumulation = split(batch_size, micro_batch_size, ranks.world)
    plan = stage_plan(corpus, micro, epochs, seed, sampler, ranks.world, accumulation)
    steps, checkpoints = n_steps(plan, ranks.world, accumulation), Checkpoints(checkpoint)
    start = ranks.agreed((checkpoints.newest() or 0) if ranks.first else 0)
    set_trainable(vlm, language_model)
    if start == steps:
        load_state(checkpoints.place(start), all_of(parameter_groups(vlm, projector_lr, language_model_lr)), None)
        vlm.model.eval()
        return steps
    engine_stage = zero_stage if ranks.world > 1 else 0
    # DeepSpeed casts and takes apart what it is given, so it gets a copy
    trained = replace(vlm, model=copy.deepcopy(vlm.model)) if engine_stage else vlm
    keep_in_eval_mode(trained.tower)
    if gradient_checkpointing:
        trained.model.gradient_checkpointing_enable({"use_reentrant": False})
    data = _micro_batches(vlm, corpus, features, plan, accumulation, sampler, ranks)
    with stop_flag() as stop, torch.random.fork_rng(devices=[]), zero.believed_in() if engine_stage else nullcontext():
        StageTrainer(
            TrainingGraph(trained, same_path=ranks.world > 1),
            Numbers(
                steps=steps,
                micro_batch_size=micro,
                accumulation=accumulation,
                warmup_share=warmup_share,
                weight_decay=weight_decay,
                beta2=beta2,
                clip=clip,
                precision=precision,
                loss=loss,
                zero_stage=engine_stage,
                tf32=tf32,
                seed=seed,
            ),
            parameter_groups(trained, projector_lr, language_model_lr),
            data.after(start * accumulation),
            start=start,
            ranks=ranks,
            checkpoints=checkpoints,
            save_every=save_every,
            stop=stop,
            names=lambda samples: [corpus.samples[i].id for i in samples],
            on_step=on_step,
            watch=(lambda step: watch(step, trained)) if watch else None,
            watch_every=watch_every,
            workers=workers,
        ).train()
    if engine_stage:
        ranks.wait()
        load_state(checkpoints.place(steps), all_of(parameter_groups(vlm, projector_lr, language_model_lr)), None)
    vlm.model.eval()
    return steps


def _micro_batches(
    vlm: Vlm, corpus: Corpus, features: FeatureCache, plan: Plan, accumulation: int, sampler: Sampler, ranks: Ranks
) -> MicroBatches:
    """This rank's share of the plan, with what a forward takes."""
    blank = torch.zeros(1, *features.shape) if ranks.world > 1 else None
    collating = collate_packed if sampler == "packing" else collate

    def load(micro_batch: MicroBatch) -> dict[str, Any]:
        pictures = [path for i in micro_batch.samples for path in corpus.pictures[i]]
        batch = collating([corpus.encoded[i] for i in micro_batch.samples], vlm.processor.tokenizer.pad_token_id)
        return {"batch": batch, "features": features.of(pictures), "blank": blank}

    share = share_of(
        plan,
        rank=ranks.rank,
        ranks=ranks.world,
        accumulation=accumulation,
        supervised=corpus.supervised,
        lengths=corpus.lengths,
    )
    return MicroBatches(share, load)


def split(batch_size: int, micro_batch_size: int | None, ranks: int) -> tuple[int, int]:
    """Samples of a micro-batch and micro-batches of a step on each rank.

    Raises:
        ValueError: If they do not multiply to `batch_size`.
    """
    micro = micro_batch_size or -(-batch_size // ranks)
    if batch_size % (micro * ranks) if micro_batch_size else batch_size < ranks:
        raise ValueError(
            f"batch_size {batch_size} is no multiple of micro_batch_size {micro} on {ranks} processes; "
            f"set micro_batch_size to a divisor of {batch_size / ranks:g}, or start another number of processes."
        )
    return micro, batch_size // (micro * ranks) if micro_batch_size else 1


def count_steps(
    corpus: Corpus,
    *,
    batch_size: int,
    micro_batch_size: int | None,
    epochs: float,
    seed: int,
    sampler: Sampler,
    ranks: int,
) -> int:
    """Optimiser steps of a stage."""
    micro, accumulation = split(batch_size, micro_batch_size, ranks)
    return n_steps(stage_plan(corpus, micro, epochs, seed, sampler, ranks, accumulation), ranks, accumulation)


def stage_plan(
    corpus: Corpus, micro_batch_size: int, epochs: float, seed: int, sampler: Sampler, ranks: int, accumulation: int
) -> Plan:
    """The micro-batches of a stage for all ranks."""
    return batch_plan(
        corpus.lengths,
        micro_batch_size,
        epochs,
        seed,
        sampler=sampler,
        has_image=corpus.has_image,
        ranks=ranks,
        accumulation=accumulation,
    )


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
