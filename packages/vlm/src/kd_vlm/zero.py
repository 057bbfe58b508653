"""DeepSpeed ZeRO: its configuration written out, so that no default of its decides, and the little it needs around it.

ZeRO shards optimiser state and gradients (stage 2), and parameters too (stage 3), over the ranks that torchrun starts.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

TAG = "engine"  # the folder of DeepSpeed's own files inside a checkpoint


def require_deepspeed() -> None:
    """Raise ValueError, naming the extra, unless DeepSpeed is installed."""
    if find_spec("deepspeed") is None:
        raise ValueError(
            "zero_stage 2 and 3 need DeepSpeed: pip install 'kd-vlm[deepspeed]' (Linux). "
            "Or set zero_stage: 0, which trains with DDP."
        )


def join(backend: str) -> None:
    """Let DeepSpeed use the process group that stands, without its shared-memory operator: minutes of compiling."""
    require_deepspeed()
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=backend, verbose=False)


def configuration(
    stage: int, *, precision: str, clip: float | None, micro_batch_size: int, accumulation: int, ranks: int
) -> dict[str, Any]:
    """DeepSpeed's configuration of a training stage.

    `gradient_clipping` is always given: published recipes leave it out, and what that means has changed (0, no
    clipping, up to DeepSpeed 0.14; 1.0 in 0.19). Sizes of buckets are numbers and no `auto`, which would ask the model
    for a width that a vision-language model has two of.
    """
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": False,
        "contiguous_gradients": True,
        "reduce_bucket_size": 50_000_000,
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
        }
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro_batch_size * accumulation * ranks,
        "gradient_clipping": clip or 0.0,
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


@contextmanager
def believed_in() -> Iterator[None]:
    """Afterwards transformers and accelerate forget it: while they believe in ZeRO-3, models get no weights."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # accelerate leaves it, and wraps the next stage with it


def is_engine(model: nn.Module) -> bool:
    return type(model).__name__ == "DeepSpeedEngine"


def save_engine(engine: Any, folder: Path) -> None:
    """Write this rank's part of the engine below `folder`; every rank calls this."""
    engine.save_checkpoint(str(folder), tag=TAG, exclude_frozen_parameters=True, save_latest=False)


def load_engine(engine: Any, folder: Path) -> None:
    """Take what `save_engine` wrote. These files are pickles: call this only where a manifest of ours covers them.

    Raises:
        ValueError: If there is nothing of the kind in `folder`.
    """
    path, _ = engine.load_checkpoint(
        str(folder), tag=TAG, load_module_strict=False, load_lr_scheduler_states=False, load_optimizer_states=True
    )
    if path is None:
        raise ValueError(f"{folder} holds no state of a DeepSpeed engine; was it written without ZeRO?")


def full_parameters(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Each parameter whole and in float32, on the CPU; every rank calls this."""
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    for name, parameter in parameters.items():
        whole = safe_get_full_fp32_param(parameter)
        if whole is None:
            raise RuntimeError(f"DeepSpeed has no float32 copy of {name}; it is not trained by this engine.")
        found[name] = whole.detach().float().cpu().reshape(getattr(parameter, "ds_shape", parameter.shape)).clone()
    return found
