"""AFD: student and teacher fused into one embedding."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def augmented(
    z_student: Float[Tensor, "b ds"],
    z_teacher: Float[Tensor, "b dt"],
    weight: Float[Tensor, "ds ds+dt"],
    bias: Float[Tensor, " ds"],
) -> Float[Tensor, "b ds"]:
    """Unit embeddings n(U [student; teacher] + bias); no gradient reaches the teacher.

    AFD is `contrastive` over these, in both directions. The student's part is its own unit embedding, not the projected
    one, so that the widths may differ.

    Source: Yang et al., CLIP-KD, CVPR 2024, "AFD".
    """
    return F.normalize(F.linear(torch.cat([z_student, z_teacher.detach()], dim=-1), weight, bias), dim=-1)
