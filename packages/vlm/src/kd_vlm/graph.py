"""All that one micro-batch computes, as one module: what DDP and ZeRO wrap, and what transformers' Trainer trains."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kd_vlm.assembly import Vlm
from kd_vlm.batch import Batch, loss_sum, supervised_logits
from kd_vlm.templates import IGNORE


class TrainingGraph(nn.Module):
    """Projector and language model on one micro-batch, down to the sum of its loss.

    Every parameter is used inside `forward`, so that the hooks of DDP and ZeRO see it. The stock model stays what it
    is, class and all; nothing of it is overridden.

    Args:
        vlm: Its model is this module's only child.
        same_path: Whether a micro-batch without pictures gets a blank one. Ranks that train together must use the
            same parameters in the same order, or their collectives do not meet. Before a frozen language model, text
            alone uses nothing that is trained, so there is no gradient. Elsewhere it would be wasted work.
    """

    def __init__(self, vlm: Vlm, *, same_path: bool) -> None:
        super().__init__()
        self.model = vlm.model
        self.vlm, self.same_path = vlm, same_path

    def forward(self, batch: Batch, features: Tensor | None, blank: Tensor | None) -> Float[Tensor, ""]:
        """The summed cross-entropy over the micro-batch's supervised tokens.

        Args:
            batch: Tokens.
            features: The tower's output (n, p, w) for its pictures; None where it has none.
            blank: The features (1, p, w) that stand for a picture where there is none.
        """
        if self.same_path and features is None:
            batch, features = with_blank_picture(batch, self.vlm), blank
        if features is not None:
            features = features.to(next(self.vlm.projector.parameters()).dtype)
        logits, targets = supervised_logits(self.vlm, batch, features=features)
        return loss_sum(logits, targets)


def with_blank_picture(batch: Batch, vlm: Vlm) -> Batch:
    """`batch` with one more row: the places of one picture and no label.

    The row runs the stock path from projector to language model and adds exact zeros to every gradient.
    """
    n = vlm.tokens_per_image
    width = max(n, batch.ids.shape[1])
    row = torch.full((1, n), vlm.image_id, device=batch.ids.device)

    def extended(rows: Tensor, more: Tensor, value: int) -> Tensor:
        return torch.cat([F.pad(part, (0, width - part.shape[1]), value=value) for part in (rows, more)])

    ids = extended(batch.ids, row, int(vlm.processor.tokenizer.pad_token_id))
    labels = extended(batch.labels, torch.full_like(row, IGNORE), IGNORE)
    positions = batch.position_ids
    if positions is not None:
        more = width - positions.shape[1]  # the padding behind a packed row is a sample of its own
        tail = torch.arange(more, device=positions.device).expand(len(positions), more)
        again = torch.arange(width, device=positions.device)[None]
        positions = torch.cat([torch.cat([positions, tail], dim=1), again])
    return replace(batch, ids=ids, labels=labels, position_ids=positions, n_images=1)


def keep_in_eval_mode(module: nn.Module) -> None:
    """From now on `module.train()` leaves it in eval mode, whoever calls it.

    transformers' Trainer puts the whole model into training mode at every step. A "frozen" tower would then drift:
    BatchNorm moves its statistics and drop-path draws.
    """
    module.eval()

    def train(mode: bool = True) -> Any:
        return module

    module.train = train  # type: ignore[method-assign]
