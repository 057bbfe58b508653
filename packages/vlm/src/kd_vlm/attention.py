"""Which implementation of attention the language model runs, and whether it keeps the samples of a packed row apart."""

from importlib.util import find_spec
from typing import Any

import torch

from kd_vlm.packed_attention import BY_SAMPLE, language_attention

APART = 1e-4  # of a token's state; rounding of float32 makes about 1e-6 a few layers on, a neighbour that is seen 0.1


def set_attention(model: Any, name: str, precision: str, *, packed: bool = False) -> str:
    """Make `model` attend by `name`; `auto` takes flash_attention_2 where it can run, else sdpa. Gives the one taken.

    Packed rows get sdpa once a sample; see `packed_attention`. A model that has but its own attention keeps it.

    Raises:
        ValueError: If flash_attention_2 is asked for and cannot run, or the samples of packed rows see each other.
    """
    able = torch.cuda.is_available() and find_spec("flash_attn") is not None and precision in ("bf16", "fp16")
    if name == "flash_attention_2" and not able:
        raise ValueError(
            "attention: flash_attention_2 needs a CUDA device, the package flash-attn and precision bf16 or fp16; "
            "set attention: sdpa (equal up to rounding) or auto."
        )
    wanted = ("flash_attention_2" if able else BY_SAMPLE if packed else "sdpa") if name == "auto" else name
    language_model = model.model.language_model
    language_model.set_attn_implementation(wanted)
    taken = str(language_model.config._attn_implementation)
    if packed:
        _check_apart(model, taken)
    return taken


def _check_apart(model: Any, taken: str) -> None:
    """Raise ValueError unless two samples in one row come out of the language model as each of them does alone.

    Whether positions alone keep them apart is a matter of the model's code: some masks are made without them, and a
    convolution runs across them. So it is tried in float32, whatever the stage trains in. FlashAttention runs on GPUs
    alone and reads the same positions as sdpa once a sample, which is tried in its place.
    """
    stand_in = BY_SAMPLE if taken == "flash_attention_2" else taken
    with language_attention(model, stand_in):
        apart = _distance(model.model.language_model)
    if not apart <= APART:
        raise ValueError(
            f"sampler: packing with attention {taken}: in {type(model.model.language_model).__name__} the samples of a "
            f"packed row see each other (a token's state differs by {apart:.2g} from the sample alone, expected at "
            f"most {APART:g}). Take sampler: buckets; where attention is not auto, auto may do."
        )


def _distance(language_model: Any) -> float:
    """How far a packed row's states are from those of its samples alone: the largest over tokens, relative."""
    table = language_model.get_input_embeddings().weight
    ids = (torch.arange(3, 23, device=table.device) % len(table))[None]
    positions = [torch.arange(n, device=table.device)[None] for n in (11, 9)]
    options = {"attention_mask": None, "use_cache": False}
    training = language_model.training
    language_model.eval()
    with torch.no_grad():
        row = language_model(input_ids=ids, position_ids=torch.cat(positions, dim=1), **options).last_hidden_state
        samples = [
            language_model(input_ids=one, position_ids=p, **options).last_hidden_state
            for one, p in zip(ids.split([11, 9], dim=1), positions, strict=True)
        ]
    language_model.train(training)
    alone = torch.cat(samples, dim=1).float()
    return float(((row.float() - alone).norm(dim=-1) / alone.norm(dim=-1).clamp_min(1e-12)).max())
