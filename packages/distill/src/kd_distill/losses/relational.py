"""Whole rows of similarities against a teacher's: KL, soft cross-entropy, the mean of several teachers."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

EXCLUDED = -1e9  # a logit whose probability is 0 and whose product with 0 is 0, as minus infinity's is not


def relational_kl(log_q: Float[Tensor, "b n"], log_p: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    """KL(teacher || student) = mean_i sum_j p_ij (log p_ij - log q_ij), in nats. No gradient reaches the teacher.

    Args:
        log_q: The student's log-probabilities of each anchor over the keys.
        log_p: The teacher's.

    Returns:
        A scalar in [0, inf), zero where the two agree.

    CKD ("CRD") is the mean of this over image and text anchors, each model with its own scale; cross-KD has the
    student's anchors against the teacher's keys as `log_q` (Yang et al., CLIP-KD, CVPR 2024). Between images alone or
    texts alone it is the loss of SEED (Fang et al., ICLR 2021) and MCL (Yang et al., AAAI 2022) over a batch.
    """
    return F.kl_div(log_q, log_p.detach(), reduction="batchmean", log_target=True)


def soft_cross_entropy(log_q: Float[Tensor, "b n"], log_p: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    """-mean_i sum_j p_ij log q_ij, in nats: `relational_kl` plus the entropy of the teacher, so the gradient is equal.

    Returns:
        A scalar in [0, inf); at its least, the teacher's mean entropy.

    Source: open_clip, `DistillClipLoss`, which averages it over both directions; TinyCLIP (Wu et al., ICCV 2023).
    """
    return -(log_p.detach().exp() * log_q).sum(dim=-1).mean()


def mean_of_teachers(log_ps: Sequence[Float[Tensor, "b n"]]) -> Float[Tensor, "b n"]:
    """Logarithm of the mean of the teachers' probabilities: softmax first, then the mean.

    Source: Vasu et al., MobileCLIP, CVPR 2024 (its ensemble averages probabilities, not logits).
    """
    return torch.logsumexp(torch.stack(list(log_ps)), dim=0) - math.log(len(log_ps))


def without_self(logits: Float[Tensor, "b n"], labels: Int[Tensor, " b"]) -> Float[Tensor, "b n"]:
    """`logits` with each anchor's similarity to itself excluded; among n images a softmax would see little else."""
    return logits.scatter(1, labels[:, None], EXCLUDED)
