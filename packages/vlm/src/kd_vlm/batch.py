"""What one forward pass takes, padded or packed, and its loss with logits only where something is supervised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kd_vlm.assembly import Vlm
from kd_vlm.connectors import projected
from kd_vlm.regimen import LossNormalisation
from kd_vlm.templates import IGNORE, Encoded


@dataclass(frozen=True)
class Batch:
    """Tokens of a micro-batch.

    Attributes:
        ids: Token ids; the pictures' places hold the image token.
        labels: `IGNORE` where nothing is supervised.
        position_ids: None where every row is one sample, padded on the right. In a packed row they begin again at 0
            with each sample, and that alone keeps samples apart: it works only without an attention mask and without
            a key-value cache.
        n_samples: Conversations in it.
        n_images: Pictures in it, in the order of their places; 0 marks a text-only micro-batch, whose forward never
            reaches tower and projector.
        n_tokens: Tokens without padding.
    """

    ids: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]
    position_ids: Int[Tensor, "b t"] | None
    n_samples: int
    n_images: int
    n_tokens: int

    @property
    def text_only(self) -> bool:
        return self.n_images == 0

    @property
    def supervised(self) -> Any:
        """(b, t) of bool: the positions whose next token is supervised."""
        return self.targets != IGNORE

    @property
    def targets(self) -> Int[Tensor, "b t"]:
        """The label that each position predicts: that of the next token."""
        return nn.functional.pad(self.labels, (0, 1), value=IGNORE)[:, 1:]

    def to(self, device: torch.device | str) -> "Batch":
        position_ids = None if self.position_ids is None else self.position_ids.to(device)
        counts = (self.n_samples, self.n_images, self.n_tokens)
        return Batch(self.ids.to(device), self.labels.to(device), position_ids, *counts)


def collate(samples: Sequence[Encoded], pad_id: int) -> Batch:
    """One sample a row, padded on the right to the longest."""
    longest = max(len(sample.ids) for sample in samples)
    ids = torch.full((len(samples), longest), pad_id)
    labels = torch.full((len(samples), longest), IGNORE)
    for i, sample in enumerate(samples):
        ids[i, : len(sample.ids)] = torch.tensor(sample.ids)
        labels[i, : len(sample.labels)] = torch.tensor(sample.labels)
    return Batch(ids, labels, None, *_counts(samples))


def collate_packed(samples: Sequence[Encoded], pad_id: int, *, row_tokens: int | None = None) -> Batch:
    """All samples in one row, one after the other; padded up to `row_tokens` where that is given (static shapes).

    The first label of every sample is `IGNORE`: the last token of one sample does not predict the next one's first.
    """
    ids = [token for sample in samples for token in sample.ids]
    labels = [label for sample in samples for label in (IGNORE, *sample.labels[1:])]
    positions = [position for sample in samples for position in range(len(sample.ids))]
    missing = max(0, (row_tokens or 0) - len(ids))  # the padding is a sample of its own without labels
    ids, labels, positions = ids + [pad_id] * missing, labels + [IGNORE] * missing, positions + list(range(missing))
    return Batch(torch.tensor([ids]), torch.tensor([labels]), torch.tensor([positions]), *_counts(samples))


def _counts(samples: Sequence[Encoded]) -> tuple[int, int, int]:
    return len(samples), sum(sample.n_images for sample in samples), sum(len(sample.ids) for sample in samples)


def stock_inputs(batch: Batch) -> dict[str, Any]:
    """The arguments of a stock forward for `batch`, pictures apart, with logits only where something is supervised."""
    return {
        "input_ids": batch.ids,
        "position_ids": batch.position_ids,
        "attention_mask": None,
        "logits_to_keep": batch.supervised,
        "use_cache": False,
    }


def image_inputs(vlm: Vlm, *, features: Tensor | None = None, pixels: Tensor | None = None) -> dict[str, Any]:
    """The arguments for the pictures: the tower's output (n, p, w), which the projector reads here, or pixels.

    Raises:
        ValueError: If both are given.
    """
    if features is not None and pixels is not None:
        raise ValueError("Expected the pictures as features or as pixels, got both.")
    if pixels is not None:
        return {"pixel_values": pixels}
    if features is None or not len(features):
        return {}
    return {"mm_encoder_outputs": projected(vlm.model, features)}


def supervised_logits(
    vlm: Vlm, batch: Batch, *, features: Tensor | None = None, pixels: Tensor | None = None
) -> tuple[Float[Tensor, "k v"], Int[Tensor, " k"]]:
    """Logits at the `k` positions of `batch` that predict a supervised token, row by row, and those tokens.

    Equal to the same rows of a full forward on pixels: everything after the tower runs as always.

    Args:
        vlm: The model.
        batch: Padded or packed.
        features: The tower's output (n, p, w) for the batch's pictures in the order of their places.
        pixels: Or their pixels (n, 3, h, w), which the tower then reads.
    """
    output = vlm.model(**stock_inputs(batch), **image_inputs(vlm, features=features, pixels=pixels))
    return output.logits.flatten(0, -2), batch.targets[batch.supervised]


def loss_sum(logits: Float[Tensor, "k v"], targets: Int[Tensor, " k"]) -> Float[Tensor, ""]:
    """Cross-entropy in nats, summed over the tokens, in float32 whatever the precision of the logits."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


def normalised(
    total: Float[Tensor, ""],
    count: int,
    how: LossNormalisation,
    *,
    step_count: int | None = None,
    ranks: int = 1,
    accumulation: int = 1,
) -> Float[Tensor, ""]:
    """What a micro-batch is to backpropagate, for ranks whose gradients are averaged and micro-batches that add up.

    Args:
        total: The micro-batch's `loss_sum`.
        count: Its supervised tokens.
        how: `micro_batch_mean`: each micro-batch weighs the same, as in LLaVA, TinyLLaVA and Bunny. `global_tokens`:
            each supervised token of the step weighs the same, as in transformers since 4.46.
        step_count: Supervised tokens of the optimiser step, over its micro-batches and all ranks; `global_tokens`
            needs it.
        ranks: Processes whose gradients are averaged.
        accumulation: Micro-batches of this step on each rank.

    Raises:
        ValueError: If `step_count` is missing.
    """
    if how == "micro_batch_mean":
        return total / (count * accumulation)
    if step_count is None:
        raise ValueError("global_tokens needs step_count, the supervised tokens of the whole optimiser step.")
    return total * (ranks / step_count)
