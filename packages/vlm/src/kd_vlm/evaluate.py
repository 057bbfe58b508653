"""Held-out loss, and the share of answers that greedy decoding would give exactly."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd_vlm.assembly import Vlm
from kd_vlm.batch import collate, loss_sum, supervised_logits
from kd_vlm.corpus import Corpus
from kd_vlm.features import FeatureCache


@dataclass(frozen=True)
class HeldOut:
    """`loss` is in nats per supervised token; `right` has one entry an answer, in the order of the corpus."""

    loss: float
    right: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def held_out(vlm: Vlm, corpus: Corpus, features: FeatureCache, batch_size: int = 32) -> HeldOut:
    """Score `corpus` in one forward pass per batch.

    Greedy decoding gives an answer exactly if and only if each of its tokens is the most likely one after the true
    tokens before it, so no generation is needed. Answers after the first of a conversation see the true earlier ones.

    Raises:
        ValueError: If `corpus` is empty.
    """
    if not len(corpus):
        raise ValueError("Expected held-out conversations to score, got none; raise held_out or leave the score out.")
    loss, n_tokens, right = 0.0, 0, []
    device = next(vlm.model.parameters()).device
    for start in range(0, len(corpus), batch_size):
        part = range(start, min(start + batch_size, len(corpus)))
        batch = collate([corpus.encoded[i] for i in part], vlm.processor.tokenizer.pad_token_id).to(device)
        with torch.no_grad():
            pictures = features.of([p for i in part for p in corpus.pictures[i]])
            pictures = None if pictures is None else pictures.to(device, next(vlm.projector.parameters()).dtype)
            logits, targets = supervised_logits(vlm, batch, features=pictures)
        loss += float(loss_sum(logits, targets))
        n_tokens += len(targets)
        right.append(answers_right(batch.supervised, logits.argmax(-1) == targets).cpu())
    return HeldOut(loss / max(n_tokens, 1), torch.cat(right).numpy())


def answers_right(kept: Tensor, token_right: Tensor) -> Tensor:
    """Whether every token of each answer is right.

    Args:
        kept: (b, t), True at the positions that predict a supervised token; an answer is a run of them.
        token_right: (k,), for the True positions in row-major order.

    Returns:
        (answers,) of bool, in row-major order.
    """
    position = kept.nonzero()
    starts = torch.ones(len(position), dtype=torch.bool, device=kept.device)
    starts[1:] = (position[1:, 0] != position[:-1, 0]) | (position[1:, 1] != position[:-1, 1] + 1)
    answer = starts.cumsum(0) - 1
    n_wrong = torch.zeros(int(starts.sum()), dtype=torch.long, device=kept.device).index_add_(
        0, answer, (~token_right).long()
    )
    return n_wrong == 0
