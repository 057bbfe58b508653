"""Embeddings against the teacher's, pair by pair: FD, MFD, MSE."""

from jaxtyping import Float
from torch import Tensor

REDUCTIONS = ("mean_nd", "mean_n")


def feature_distillation(
    y_student: Float[Tensor, "b d"], z_teacher: Float[Tensor, "b d"], reduction: str = "mean_nd"
) -> Float[Tensor, ""]:
    """Mean of (y - z)^2. No gradient reaches the teacher.

    Args:
        y_student: The student's embeddings, already projected to the teacher's width: unit length for FD and MFD, as
            the head gives them for plain MSE.
        z_teacher: The teacher's unit embeddings.
        reduction: `mean_nd` averages over batch and dimension, so that one weight means less for a wider teacher
            (CLIP-KD has it so, with weight 2000). `mean_n` averages over the batch alone.

    Returns:
        A scalar in [0, inf). Between unit vectors it is 2 - 2 cos, in [0, 4], divided by d for `mean_nd`.

    Raises:
        ValueError: If the widths differ or the reduction is unknown.

    Source: Yang et al., CLIP-KD, CVPR 2024, "FD" and "MFD" (the student reads a part of the patches).
    """
    if y_student.shape != z_teacher.shape:
        raise ValueError(
            f"Expected embeddings of one shape, got {tuple(y_student.shape)} and {tuple(z_teacher.shape)}."
        )
    squared = (y_student - z_teacher.detach()).square()
    if reduction == "mean_nd":
        return squared.mean()
    if reduction == "mean_n":
        return squared.sum(dim=-1).mean()
    raise ValueError(f"Expected reduction {' or '.join(REDUCTIONS)}, got {reduction!r}.")
