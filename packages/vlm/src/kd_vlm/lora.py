"""LoRA on the language model alone, by PEFT. The model's class and its place stay: adapters are put into it."""

import re
from typing import Any

import torch
from torch import nn

LANGUAGE_MODEL = "language_model"


def add_lora(model: Any, *, rank: int, alpha: int, dropout: float, seed: int) -> Any:
    """Put adapters beside every linear layer of `model`'s language model; gives PEFT's view of it.

    `model` itself is changed in place and keeps its class. Everything but the adapters is frozen.

    Args:
        model: A stock VLM.
        rank: Rank of the update.
        alpha: The update is scaled by alpha / rank.
        dropout: On the adapters' input, in training.
        seed: Of the adapters' initial weights (A as in a linear layer, B zero: the model begins unchanged).

    Source: Hu et al., LoRA, ICLR 2022; LLaVA's `find_all_linear_names`.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        bias="none",
        task_type="CAUSAL_LM",
        target_modules=target_modules(model),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # noqa: TID251  PEFT takes no generator
        return get_peft_model(model, config)


def target_modules(model: nn.Module) -> str:
    """A regular expression that matches the linear layers of the language model and nothing of tower and projector.

    Raises:
        ValueError: If there is none.
    """
    found = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if LANGUAGE_MODEL in name.split(".") and isinstance(module, nn.Linear)
    }
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear layer below {LANGUAGE_MODEL!r} to adapt.")
    return rf"(.*\.)?{LANGUAGE_MODEL}\..*\.({'|'.join(sorted(map(re.escape, found)))})"


def merge(adapted: Any) -> Any:
    """The stock model with the adapters added to its weights; what `add_lora` was given, changed back in place."""
    return adapted.merge_and_unload()
