"""InfoNCE: each row's own pair among all keys."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def pair_cross_entropy(log_q: Float[Tensor, "b n"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    """-mean_i log q[i, labels_i]: the cross-entropy of each anchor with its own pair, in nats.

    Args:
        log_q: Log-probabilities of each anchor over the `n` keys, log_softmax of scale * cosine.
        labels: Column of each anchor's own pair.

    Returns:
        A scalar in [0, inf); log n where all keys are equal.

    The task loss is the mean of this over image anchors and text anchors (Radford et al., CLIP, 2021, section 2.3).
    ICL is the same with the student's anchors and the teacher's keys, AFD with fused embeddings (Yang et al., CLIP-KD,
    CVPR 2024).
    """
    return F.nll_loss(log_q, labels)


def contrastive(logits: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """The task loss of a square of logits, matching pairs on the diagonal: the mean over its rows and its columns."""
    labels = torch.arange(len(logits), device=logits.device)
    rows, columns = (pair_cross_entropy(x.log_softmax(dim=-1), labels) for x in (logits, logits.T))
    return (rows + columns) / 2
