"""The losses of CLIP-KD, each a pure function of embeddings or logits, and the one place where they are weighed.

Axis letters: `b` batch, `d` width of the embedding. `z` is an L2-normalised embedding; a `scale` multiplies.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def contrastive(logits: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """InfoNCE over matching pairs on the diagonal, in nats: the mean of both directions.

    Source: Radford et al., CLIP, 2021, section 2.3.
    """
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def relational_kl(logits_student: Float[Tensor, "b b"], logits_teacher: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """KL(teacher || student) over each row of similarities, in nats, averaged over rows. Zero when the two agree.

    No gradient reaches the teacher.
    """
    return F.kl_div(
        F.log_softmax(logits_student, dim=-1),
        F.log_softmax(logits_teacher.detach(), dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def contrastive_relational(
    logits_student: Float[Tensor, "b b"], logits_teacher: Float[Tensor, "b b"]
) -> Float[Tensor, ""]:
    """CKD: `relational_kl` of image-to-text and of text-to-image similarities, the mean of the two.

    Each side has its own temperature, already in its logits.

    Source: Yang et al., CLIP-KD, CVPR 2024, "CRD".
    """
    return (relational_kl(logits_student, logits_teacher) + relational_kl(logits_student.T, logits_teacher.T)) / 2


def feature_distillation(
    z_student: Float[Tensor, "b d"], z_teacher: Float[Tensor, "b d"], reduction: str = "mean_nd"
) -> Float[Tensor, ""]:
    """Squared distance between unit embeddings.

    Args:
        z_student: L2-normalised student embeddings, already projected to the teacher's width.
        z_teacher: L2-normalised teacher embeddings. No gradient reaches them.
        reduction: `mean_nd` averages over batch and dimension, so that the value is (2 - 2 cos) / d and one weight
            means less for a wider teacher (CLIP-KD has it so, with weight 2000). `mean_n` averages over the batch
            alone: 2 - 2 cos.

    Raises:
        ValueError: If the widths differ or the reduction is unknown.

    Source: Yang et al., CLIP-KD, CVPR 2024, "FD".
    """
    if z_student.shape != z_teacher.shape:
        raise ValueError(
            f"Expected embeddings of one shape, got {tuple(z_student.shape)} and {tuple(z_teacher.shape)}."
        )
    squared = (z_student - z_teacher.detach()).square()
    if reduction == "mean_nd":
        return squared.mean()
    if reduction == "mean_n":
        return squared.sum(dim=-1).mean()
    raise ValueError(f"Expected reduction mean_nd or mean_n, got {reduction!r}.")


def interactive_contrastive(
    image_student: Float[Tensor, "b d"],
    text_student: Float[Tensor, "b d"],
    image_teacher: Float[Tensor, "b d"],
    text_teacher: Float[Tensor, "b d"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """ICL: the student's anchors against the teacher's other modality, rows only, the mean of both.

    All embeddings are L2-normalised and of the teacher's width; no gradient reaches the teacher's.

    Source: Yang et al., CLIP-KD, CVPR 2024, "ICL".
    """
    labels = torch.arange(len(image_student), device=image_student.device)
    image_to_text = F.cross_entropy(scale * image_student @ text_teacher.detach().T, labels)
    text_to_image = F.cross_entropy(scale * text_student @ image_teacher.detach().T, labels)
    return (image_to_text + text_to_image) / 2


def mix(terms: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float]) -> Float[Tensor, ""]:
    """Sum `weights[name] * terms[name]`. Every weight must name a term, and every term must have a weight."""
    if terms.keys() != weights.keys():
        raise ValueError(
            f"Loss terms and weights name different things: terms {sorted(terms)}, weights {sorted(weights)}."
        )
    return torch.stack([weights[name] * term for name, term in sorted(terms.items())]).sum()
