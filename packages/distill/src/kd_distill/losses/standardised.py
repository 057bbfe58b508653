"""Features against a teacher's whose dimensions all have mean 0 and variance 1, so that no few of them rule."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST_VARIANCE = 1e-12  # of a dimension that never changes; unit embeddings of width 4096 have about 2e-4


def standardised_distance(y_student: Float[Tensor, "*b d"], y_teacher: Float[Tensor, "*b d"]) -> Float[Tensor, ""]:
    """Mean of (y - t)^2 over batch and dimension, t the standardised teacher. No gradient reaches the teacher.

    Returns:
        A scalar in [0, inf), about 1 for a student that says 0, whatever the teacher's width.

    Source: Ranzinger et al., PHI-S, 2024, "standardization"; RADIOv2.5 (Heinrich et al., CVPR 2025).
    """
    return torch.nn.functional.mse_loss(y_student, y_teacher.detach())


class Statistics(nn.Module):
    """Running mean and variance of a teacher's features over all that was seen, in float64, saved with the task.

    Args:
        width: Of the features.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("variance", torch.zeros(width, dtype=torch.float64))

    @torch.no_grad()
    def update(self, sums: Float[Tensor, "3 d"]) -> None:
        """Take in the `sums_of` new features, those of all ranks added up."""
        n = sums[0, 0]
        mean = sums[1] / n
        variance = (sums[2] / n - mean.square()).clamp_min(0)
        total = self.count + n
        apart = (mean - self.mean) * (n / total)
        spread = (self.count * self.variance + n * variance) / total
        self.variance.copy_(spread + (mean - self.mean).square() * (self.count * n / total.square()))
        self.mean += apart
        self.count.copy_(total)

    def standardise(self, y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """(y - mean) / standard deviation, in the type of `y`.

        Raises:
            ValueError: If nothing was seen yet.
        """
        if self.count == 0:
            raise ValueError("The statistics of the teacher are empty: run a training step, or load a checkpoint.")
        return ((y - self.mean) / self.variance.clamp_min(SMALLEST_VARIANCE).sqrt()).to(y.dtype)


def sums_of(y: Float[Tensor, "*b d"]) -> Float[Tensor, "3 d"]:
    """Count, sum and sum of squares of each dimension, in float64."""
    rows = y.detach().flatten(0, -2).double()
    return torch.stack([torch.full_like(rows[0], len(rows)), rows.sum(dim=0), rows.square().sum(dim=0)])
