"""Greedy decoding of many short questions after few long prefixes.

The keys and values of a prefix (chat head and image) are computed once and copied to the rows that share it; the rest
of each prompt is padded on the left, between prefix and text, and masked. Rows that have ended leave the batch. In
exact arithmetic the tokens are those of `generate(do_sample=False)` on each prompt alone.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

LEAVE_AT = 0.5  # share of rows still going at which those that ended are taken out
KeysValues = tuple[Tensor, Tensor]  # (rows, heads, length, width) each


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Keys and values of prefixes of one length, a pair a layer; `rows` says which prefix stands where."""

    rows: dict[Any, int]
    layers: list[KeysValues]
    length: int

    def select(self, keys: Sequence[Any]) -> list[KeysValues]:
        """Those of `keys`, in this order."""
        index = torch.tensor([self.rows[key] for key in keys], device=self.layers[0][0].device)
        return [(k.index_select(0, index), v.index_select(0, index)) for k, v in self.layers]


class Room(DynamicLayer):
    """A cache layer with room for the tokens to come, so that no step copies what is there.

    Args:
        start: Keys and values that stand first, or None.
        room: How many tokens can come.
    """

    def __init__(self, start: KeysValues | None, room: int) -> None:
        super().__init__()
        self._size, self._length = room + (start[0].shape[2] if start else 0), 0
        if start is not None:
            self.update(*start)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.device, self.dtype = key_states.device, key_states.dtype
        self._keys, self._values = (
            states.new_empty(*states.shape[:2], self._size, states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._length + key_states.shape[2]
        self._keys[:, :, self._length : end] = key_states
        self._values[:, :, self._length : end] = value_states
        self._length = end
        self._show()
        return self.shown

    def get_seq_length(self) -> int:
        return self._length

    def keep(self, rows: Tensor) -> None:
        """Only these rows from now on."""
        self._keys, self._values = self._keys[rows], self._values[rows]
        self._show()

    def _show(self) -> None:
        self.shown = self._keys[:, :, : self._length], self._values[:, :, : self._length]
        self.keys, self.values = self.shown


class Decoder:
    """Runs a causal model from embeddings.

    Args:
        model: A conditional-generation model whose forward takes `inputs_embeds`.
        ends: Tokens that end a reply.
    """

    def __init__(self, model: Any, ends: Sequence[int]) -> None:
        self.model, self.ends = model, torch.tensor(ends, device=model.device)
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"  # as transformers calls it

    @staticmethod
    def suits(config: Any) -> bool:
        """Whether every layer of the decoder attends to all that came before, so that a prefix can be kept."""
        return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)

    def prefill(self, embeddings: Tensor) -> list[KeysValues]:
        """Keys and values of prefixes (n, p, w), a pair a layer."""
        layers = self._layers(None, embeddings.shape[1])
        self._forward(embeddings, torch.ones(embeddings.shape[:2], device=embeddings.device), layers, keep=1)
        return [layer.shown for layer in layers]

    def generate(self, start: list[KeysValues] | None, texts: Sequence[Tensor], max_new_tokens: int) -> list[list[int]]:
        """The tokens of each reply, without the end.

        Args:
            start: Keys and values of the prefix of each row, or None where there is none.
            texts: What stands behind the prefix, (t, w) each.
            max_new_tokens: When a reply without an end stops.
        """
        embeddings, mask = self._padded(start, texts, max_new_tokens)
        n, seen = len(texts), mask.shape[1] - max_new_tokens
        layers = self._layers(start, embeddings.shape[1] + max_new_tokens)
        rows, replies = torch.arange(n, device=mask.device), torch.full((n, max_new_tokens), -1, device=mask.device)
        going = torch.ones(n, dtype=torch.bool, device=mask.device)
        for step in range(max_new_tokens):
            token = self._forward(embeddings, mask[:, : seen + step], layers, keep=1)[:, -1].float().argmax(dim=-1)
            going = going & ~torch.isin(token, self.ends)
            replies[rows[going], step] = token[going]
            left = int(going.sum())
            if left == 0 or step + 1 == max_new_tokens:
                break
            if left <= LEAVE_AT * len(going):
                rows, token, mask = rows[going], token[going], mask[going]
                for layer in layers:
                    layer.keep(going)
                going = going[going]
            embeddings = self.model.get_input_embeddings()(token.unsqueeze(1))
        return [[t for t in reply if t >= 0] for reply in replies.tolist()]

    def log_likelihoods(
        self, start: list[KeysValues] | None, texts: Sequence[Tensor], options: Sequence[Sequence[int]]
    ) -> Tensor:
        """Log P of each option's tokens behind its row's text, summed over its tokens, (rows,). One option a row."""
        embed = self.model.get_input_embeddings()
        ids = [torch.tensor(option, device=texts[0].device) for option in options]
        whole = [torch.cat([text, embed(i[:-1]).to(text)]) for text, i in zip(texts, ids, strict=True)]
        embeddings, mask = self._padded(start, whole, 0)
        longest = max(len(i) for i in ids)
        logits = self._forward(embeddings, mask, self._layers(start, embeddings.shape[1]), keep=longest)
        log_p = logits.float().log_softmax(dim=-1)
        return torch.stack([row[-len(i) :].gather(1, i[:, None]).sum() for row, i in zip(log_p, ids, strict=True)])

    def next_logits(self, start: list[KeysValues] | None, texts: Sequence[Tensor]) -> Tensor:
        """Logits of the first token of each reply, (rows, v)."""
        embeddings, mask = self._padded(start, texts, 0)
        return self._forward(embeddings, mask, self._layers(start, embeddings.shape[1]), keep=1)[:, -1].float()

    def _forward(self, embeddings: Tensor, mask: Tensor, layers: list[Room], keep: int) -> Tensor:
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -embeddings.shape[1] :]
        out = self.model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=keep,
            use_cache=True,
            **{self._cache_name: Cache(layers=list(layers))},
        )
        logits: Tensor = out.logits
        return logits

    def _layers(self, start: list[KeysValues] | None, room: int) -> list[Room]:
        if start is None:
            return [Room(None, room) for _ in range(self.model.config.get_text_config(decoder=True).num_hidden_layers)]
        return [Room(pair, room) for pair in start]

    @staticmethod
    def _padded(start: list[KeysValues] | None, texts: Sequence[Tensor], new: int) -> tuple[Tensor, Tensor]:
        """Embeddings (rows, t, w) padded on the left, and the mask of prefix, padding, text and `new` tokens."""
        prefix = start[0][0].shape[2] if start else 0
        longest = max(len(text) for text in texts)
        embeddings = texts[0].new_zeros(len(texts), longest, texts[0].shape[1])
        mask = torch.ones(len(texts), prefix + longest + new, dtype=torch.long, device=embeddings.device)
        for row, text in enumerate(texts):
            embeddings[row, longest - len(text) :] = text
            mask[row, prefix : prefix + longest - len(text)] = 0
        return embeddings, mask
