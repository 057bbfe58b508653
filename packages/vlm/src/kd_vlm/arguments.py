"""The numbers of a training stage, and what transformers' Trainer is told of them."""

from dataclasses import dataclass
from pathlib import Path

from transformers import TrainingArguments

from kd_vlm.batch import LossNormalisation
from kd_vlm.distributed import Ranks
from kd_vlm.zero import configuration


@dataclass(frozen=True)
class Numbers:
    """The numbers of a stage, as a recipe gives them.

    Attributes:
        steps: Optimiser steps in all.
        micro_batch_size: Samples of one forward on one rank.
        accumulation: Micro-batches of a step on each rank.
        clip: Largest gradient norm over all that is trained; None does not clip.
        loss: How micro-batches are weighed against each other, see `batch.normalised`.
        zero_stage: 0 trains with DDP where there are several ranks.
        tf32: Let matrix products of float32 use tensor cores.
    """

    steps: int
    micro_batch_size: int
    accumulation: int
    warmup_share: float
    weight_decay: float
    beta2: float
    clip: float | None
    precision: str
    loss: LossNormalisation
    zero_stage: int
    tf32: bool
    seed: int


def training_arguments(numbers: Numbers, ranks: Ranks, folder: Path) -> TrainingArguments:
    """What the Trainer needs to know of a stage. Nothing is logged, reported, evaluated or saved by it."""
    zero = configuration(
        numbers.zero_stage,
        precision=numbers.precision,
        clip=numbers.clip,
        micro_batch_size=numbers.micro_batch_size,
        accumulation=numbers.accumulation,
        ranks=ranks.world,
    )
    cpu = ranks.device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=numbers.steps,
        per_device_train_batch_size=numbers.micro_batch_size,
        gradient_accumulation_steps=numbers.accumulation,
        max_grad_norm=numbers.clip or 0.0,
        bf16=numbers.precision == "bf16",
        fp16=numbers.precision == "fp16",
        tf32=numbers.tf32 if not cpu else None,
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and ranks.world > 1 else None,
        ddp_find_unused_parameters=False,
        deepspeed=zero if numbers.zero_stage else None,
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=numbers.seed,
    )
    if ranks.world == 1 and not cpu:
        arguments._n_gpu = 1  # several GPUs without torchrun: no DataParallel
    return arguments
