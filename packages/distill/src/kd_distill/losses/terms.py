"""Each term from what it reads. Of several teachers the terms are summed; the ensemble is of their mean."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kd_distill.gather import sum_over_ranks
from kd_distill.losses.cka import cka_distance
from kd_distill.losses.contrastive import pair_cross_entropy
from kd_distill.losses.embeddings import Embeddings
from kd_distill.losses.feature import feature_distillation
from kd_distill.losses.gradient import contrastive_gradients, gradient_distillation
from kd_distill.losses.patch import patch_distillation
from kd_distill.losses.relational import mean_of_teachers, relational_kl, soft_cross_entropy
from kd_distill.losses.rows import Rows, blocks
from kd_distill.losses.sigmoid import sigmoid_kl
from kd_distill.losses.standardised import standardised_distance

Scalar = Float[Tensor, ""]


@dataclass(frozen=True)
class Options:
    """Choices within terms.

    Args:
        fd_reduction: Of fd, fd_image, mfd and mse: `mean_nd` or `mean_n`, see `feature_distillation`.
        mse_normalise: mse compares unit embeddings, as fd does; otherwise what the head gives.
        block: Rows of logits that stand in memory at once; None for all. Up to this many pairs it changes nothing, and
            beyond, smaller blocks save memory at no cost in time (benchmarks/distill_loss.py).
    """

    fd_reduction: str = "mean_nd"
    mse_normalise: bool = False
    block: int | None = 256


def total(values: Iterable[Scalar]) -> Scalar:
    """The sum of the teachers' terms."""
    return torch.stack(list(values)).sum()


def task(rows: Rows) -> Scalar:
    """InfoNCE of the student's own pairs."""
    return pair_cross_entropy(rows.log_student, rows.labels)


def ckd(rows: Rows) -> Scalar:
    """KL of the student's similarities from each teacher's."""
    return total(relational_kl(rows.log_student, log_p) for log_p in rows.log_teachers)


def soft_ce(rows: Rows) -> Scalar:
    """Cross-entropy of the student's similarities with each teacher's."""
    return total(soft_cross_entropy(rows.log_student, log_p) for log_p in rows.log_teachers)


def ensemble(rows: Rows) -> Scalar:
    """Cross-entropy with the mean of the teachers' probabilities."""
    return soft_cross_entropy(rows.log_student, mean_of_teachers(rows.log_teachers))


def icl(rows: Rows) -> Scalar:
    """The student's anchors against each teacher's keys, hard labels."""
    return total(pair_cross_entropy(log_q, rows.labels) for log_q in rows.log_cross)


def cross_kd(rows: Rows) -> Scalar:
    """The student's anchors against each teacher's keys, the teacher's own similarities as labels."""
    return total(relational_kl(q, p) for q, p in zip(rows.log_cross, rows.log_teachers, strict=True))


def afd(rows: Rows) -> Scalar:
    """InfoNCE of fused embeddings."""
    return total(pair_cross_entropy(log_q, rows.labels) for log_q in rows.log_fused)


def sigmoid_kd(rows: Rows) -> Scalar:
    """Each pair's probability against each teacher's."""
    return total(sigmoid_kl(rows.biased_student, logits) for logits in rows.biased_teachers)


def kl_within(rows: Rows) -> Scalar:
    """KL of the similarities within one modality from each teacher's."""
    return total(relational_kl(rows.log_self_student, log_p) for log_p in rows.log_self_teachers)


def fd(e: Embeddings, options: Options) -> Scalar:
    """FD of images plus FD of captions (a sum, as CLIP-KD has it)."""
    return fd_image(e, options) + _against(e, e.text.projected, e.text.teachers, options)


def fd_image(e: Embeddings, options: Options) -> Scalar:
    """FD of images."""
    return _against(e, e.image.projected, e.image.teachers, options)


def mfd(e: Embeddings, options: Options) -> Scalar:
    """FD of images of which the student saw a part and the teacher the whole."""
    return _against(e, e.masked, e.image.teachers, options)


def mse(e: Embeddings, options: Options) -> Scalar:
    """Squared distance of what the heads give from the teacher's unit embeddings, images plus captions."""
    if options.mse_normalise:
        return fd(e, options)
    image = _against(e, e.image.raw, e.image.teachers, options)
    return image + _against(e, e.text.raw, e.text.teachers, options)


def _against(e: Embeddings, own: tuple[Tensor, ...], teachers: tuple[Tensor, ...], options: Options) -> Scalar:
    pairs = zip(own, teachers, strict=True)
    return total(feature_distillation(y, e.own(z), options.fd_reduction) for y, z in pairs)


def gd(e: Embeddings, options: Options) -> Scalar:
    """Squared distance of the contrastive loss's gradients from the teacher's: four for each teacher."""
    values = []
    for k, scale in enumerate(e.scales.teachers):
        for anchor, key in ((e.image, e.text), (e.text, e.image)):
            own = _gradients(e, anchor.projected_all[k], key.projected_all[k], e.scales.student, options.block)
            with torch.no_grad():
                wanted = _gradients(e, anchor.teachers[k], key.teachers[k], scale, options.block)
            values += [gradient_distillation(a, b) for a, b in zip(own, wanted, strict=True)]
    return total(values)


def _gradients(
    e: Embeddings, anchors: Tensor, keys: Tensor, scale: Tensor | float, block: int | None
) -> tuple[Tensor, Tensor]:
    """The rank's rows of both gradients; blocks are computed again on the way back."""
    labels = torch.arange(len(keys), device=keys.device)
    of_anchors, of_keys = [], torch.zeros_like(keys)
    for start, stop in blocks(e.rows, block):
        here = slice(e.first + start, e.first + stop)
        arguments = anchors[here], keys, labels[here], scale
        if block is None or block >= e.rows:
            mine, share = contrastive_gradients(*arguments)
        else:
            mine, share = checkpoint(contrastive_gradients, *arguments, use_reentrant=False)
        of_anchors.append(mine)
        of_keys = of_keys + share
    return torch.cat(of_anchors), e.own(sum_over_ranks(of_keys))


def cka(e: Embeddings, options: Options) -> Scalar:
    """1 - CKA of image embeddings over the global batch."""
    if e.image.student is None:
        raise ValueError("The batch lacks the embeddings that cka compares.")
    return total(cka_distance(e.image.student, z) for z in e.image.teachers)


def cka_patch(e: Embeddings, options: Options) -> Scalar:
    """1 - CKA of patch tokens over the places of each image."""
    return total(cka_distance(x, y) for x, y in e.plain_patches)


def patch(e: Embeddings, options: Options) -> Scalar:
    """1 - cosine of patch tokens."""
    return total(patch_distillation(x, y) for x, y in e.patches)


def standardised(e: Embeddings, options: Options) -> Scalar:
    """Squared distance of image embeddings from the standardised teacher's."""
    return total(standardised_distance(x, y) for x, y in e.standardised)


def standardised_patch(e: Embeddings, options: Options) -> Scalar:
    """Squared distance of patch tokens from the standardised teacher's."""
    return total(standardised_distance(x, y) for x, y in e.standardised_patches)
