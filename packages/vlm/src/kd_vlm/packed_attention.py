"""Attention of packed rows without FlashAttention: the stock kernel once a sample, not once over all pairs of a row.

transformers keeps the samples of a packed row apart with a mask over all pairs of its tokens, so most of what the
kernel computes is masked. Wherever something else is asked for (padding, a cache, a sliding window) this is the stock
`sdpa`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BY_SAMPLE = "sdpa_by_sample"


@contextmanager
def language_attention(model: Any, name: str) -> Iterator[None]:
    """Inside, the language model of `model` uses the attention called `name`; the tower keeps its own."""
    before = model.config.text_config._attn_implementation
    model.model.language_model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.model.language_model.set_attn_implementation(before)


def sample_lengths(position_ids: Int[Tensor, " t"]) -> list[int]:
    """Lengths of the samples of a row, whose positions begin again at 0 with each."""
    begins = (position_ids == 0).nonzero().flatten().tolist()
    ends = [*begins[1:], len(position_ids)]
    return [end - begin for begin, end in zip(begins, ends, strict=True)]


@torch.compiler.disable(reason="how many samples a row has differs from row to row")
def by_sample(
    module: Any,
    query: Float[Tensor, "b h t d"],
    key: Float[Tensor, "b k s d"],
    value: Float[Tensor, "b k s d"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: Int[Tensor, "b t"] | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "b t h d"], None]:
    """Causal attention of each sample with itself alone; transformers' interface of an attention."""
    if attention_mask is not None or position_ids is None or query.shape[2] != key.shape[2]:
        options = {"dropout": dropout, "scaling": scaling, "position_ids": position_ids, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    options = {"dropout_p": dropout, "is_causal": True, "scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if len(position_ids) == 1:  # of all rows alike
        return _split(query, key, value, sample_lengths(position_ids[0]), options).transpose(1, 2), None
    rows = [
        _split(query[i : i + 1], key[i : i + 1], value[i : i + 1], sample_lengths(position_ids[i]), options)
        for i in range(len(query))
    ]
    return torch.cat(rows).transpose(1, 2), None


def _split(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], options: dict[str, Any]) -> Tensor:
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*part, **options) for part in parts], dim=2)


def mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """None for whole rows without padding, whose samples the positions tell apart; else the mask of `sdpa`."""
    if attention_mask is None and q_length == kv_length and kwargs.get("local_size") is None:
        return None
    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(BY_SAMPLE, by_sample)
AttentionMaskInterface.register(BY_SAMPLE, mask)
