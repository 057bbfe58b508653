"""Patch tokens, which a vision-language model reads, against the teacher's."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def resample(
    tokens: Float[Tensor, "b p w"], source: tuple[int, int], target: tuple[int, int]
) -> Float[Tensor, "b q w"]:
    """Tokens of one grid at the places of another, bilinear, antialiased where the target is coarser.

    Args:
        tokens: In row-major order.
        source: Rows and columns of `tokens`.
        target: Rows and columns of what is returned.

    Raises:
        ValueError: If the number of tokens is not that of `source`.
    """
    b, p, w = tokens.shape
    if p != source[0] * source[1]:
        raise ValueError(f"Expected {source[0]} x {source[1]} patch tokens, got {p}.")
    if source == target:
        return tokens
    image = tokens.mT.reshape(b, w, *source)
    return F.interpolate(image, size=target, mode="bilinear", antialias=True, align_corners=False).flatten(2).mT


def patch_distillation(y_student: Float[Tensor, "b p w"], y_teacher: Float[Tensor, "b p w"]) -> Float[Tensor, ""]:
    """1 - cosine of each pair of tokens, averaged over tokens and images. No gradient reaches the teacher.

    Args:
        y_student: The student's tokens, projected to the teacher's width by a head.
        y_teacher: The teacher's tokens at the places of the student's, see `resample`.

    Returns:
        A scalar in [0, 2], whatever the width.

    Source: the spatial half of AM-RADIO (Ranzinger et al., CVPR 2024), its cosine part.
    """
    return (1 - F.cosine_similarity(y_student, y_teacher.detach(), dim=-1)).mean()
