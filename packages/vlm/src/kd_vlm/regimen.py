"""How a stage trains: the choices of a recipe that decide its numbers, and which of them go together."""

from dataclasses import dataclass
from typing import Literal

Trained = Literal["frozen", "trained", "lora"]
Sampler = Literal["random", "buckets", "llava", "packing"]
LossNormalisation = Literal["micro_batch_mean", "global_tokens"]


@dataclass(frozen=True)
class Regimen:
    """What a stage's result depends on besides model and data. See `config.Stage`, which describes each field.

    Attributes:
        batch_size: Samples of one step, over all ranks and micro-batches.
        language_model: What of it is trained; "lora" after `lora.add_lora`.
        clip: Largest gradient norm over all that is trained; None does not clip.
        seed: Of the order of the data and of dropout; both are functions of it and of the step.
        micro_batch_size: Samples of one forward on one rank; None: a rank's whole share.
        loss: How micro-batches are weighed against each other, see `batch.normalised`.
        zero_stage: DeepSpeed's; one process alone has nothing to shard and trains without it.
        tf32: Let matrix products of float32 use tensor cores.
        compile: Compile the language model's layers; see `compiling`.

    Raises:
        ValueError: If `compile` is asked for where shapes change.
    """

    batch_size: int
    epochs: float
    projector_lr: float
    language_model: Trained
    language_model_lr: float | None
    warmup_share: float
    weight_decay: float
    clip: float | None
    beta2: float
    precision: str
    seed: int
    micro_batch_size: int | None = None
    sampler: Sampler = "buckets"
    loss: LossNormalisation = "global_tokens"
    zero_stage: int = 0
    gradient_checkpointing: bool = False
    tf32: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.compile:
            check_static(
                sampler=self.sampler, zero_stage=self.zero_stage, gradient_checkpointing=self.gradient_checkpointing
            )

    def sharding(self, ranks: int) -> int:
        """The ZeRO stage that so many processes train with."""
        return self.zero_stage if ranks > 1 else 0


def check_static(*, sampler: str, zero_stage: int, gradient_checkpointing: bool, attention: str = "auto") -> None:
    """Raise ValueError, saying what to set, unless a compiled layer sees one shape and no hooks."""
    wrong = {
        f"sampler {sampler} gives batches of many shapes; set sampler: packing, whose rows are padded to one length": (
            sampler != "packing"
        ),
        f"zero_stage {zero_stage} moves weights in hooks that a graph cannot hold; set zero_stage: 0": zero_stage != 0,
        "gradient_checkpointing runs a layer twice, around its attention; set it to false": gradient_checkpointing,
        "flash_attention_2 takes the longest sample of a row as a number of the graph; set attention: auto or sdpa": (
            attention == "flash_attention_2"
        ),
    }
    if found := [reason for reason, is_wrong in wrong.items() if is_wrong]:
        raise ValueError(f"compile needs static shapes: {'; '.join(found)}. Or set compile: false.")


def split(batch_size: int, micro_batch_size: int | None, ranks: int) -> tuple[int, int]:
    """Samples of a micro-batch and micro-batches of a step on each rank.

    Raises:
        ValueError: If they do not multiply to `batch_size`; names the nearest numbers that do.
    """
    at_once = (micro_batch_size or 1) * ranks
    if batch_size % at_once:
        given = f"micro_batch_size {micro_batch_size} on " if micro_batch_size else ""
        below = batch_size // at_once * at_once
        ways = ["set batch_size to " + " or ".join(str(n) for n in (below, below + at_once) if n)]
        if micro_batch_size and batch_size % ranks == 0:
            ways.append(f"micro_batch_size to a divisor of {batch_size // ranks}")
        if batch_size % (micro_batch_size or 1) == 0:
            parts = batch_size // (micro_batch_size or 1)
            fits = [n for n in range(1, parts + 1) if parts % n == 0]
            nearest = [max(n for n in fits if n < ranks), *[n for n in fits if n > ranks][:1]]
            ways.append(f"start {' or '.join(map(str, nearest))} processes")
        raise ValueError(f"batch_size {batch_size} is no multiple of {given}{ranks} processes; {', or '.join(ways)}.")
    micro = micro_batch_size or batch_size // ranks
    return micro, batch_size // (micro * ranks)
