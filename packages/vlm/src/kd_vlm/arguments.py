"""What transformers' Trainer is told of a stage. Nothing is logged, reported, evaluated or saved by it."""

from pathlib import Path

from transformers import TrainingArguments

from kd_vlm.distributed import Ranks
from kd_vlm.regimen import Regimen
from kd_vlm.schedule import Schedule
from kd_vlm.zero import configuration


def training_arguments(how: Regimen, schedule: Schedule, ranks: Ranks, folder: Path) -> TrainingArguments:
    """The Trainer's arguments.

    Raises:
        ValueError: If the precision cannot be had on this device.
    """
    cpu = ranks.device.type == "cpu"
    if cpu and how.precision == "fp16":
        raise ValueError(
            "precision fp16 scales its loss by CUDA's scaler and needs a GPU; set precision: bf16 or fp32."
        )
    sharding = how.sharding(ranks.world)
    zero = configuration(
        sharding,
        precision=how.precision,
        clip=how.clip,
        micro_batch_size=schedule.micro_batch_size,
        accumulation=schedule.accumulation,
        ranks=ranks.world,
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=schedule.steps,
        per_device_train_batch_size=schedule.micro_batch_size,
        gradient_accumulation_steps=schedule.accumulation,
        max_grad_norm=how.clip or 0.0,
        bf16=how.precision == "bf16",
        fp16=how.precision == "fp16",
        tf32=how.tf32 if not cpu else None,
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and ranks.world > 1 else None,
        ddp_find_unused_parameters=False,
        deepspeed=zero if sharding else None,
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=how.seed,
    )
    if ranks.world == 1 and not cpu:
        arguments._n_gpu = 1  # several GPUs without torchrun: no DataParallel
    return arguments
