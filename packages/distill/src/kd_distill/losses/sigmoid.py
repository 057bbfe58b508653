"""Each pair a yes-no question, as SigLIP asks it."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sigmoid_kl(logits_student: Float[Tensor, "b n"], logits_teacher: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    """mean_i sum_j KL(Bernoulli(sigma(G_ij)) || Bernoulli(sigma(L_ij))), in nats. No gradient reaches the teacher.

    Args:
        logits_student: L = scale * cosine + bias, the student's.
        logits_teacher: G, with the teacher's own scale and bias.

    Returns:
        A scalar in [0, inf), zero where the two agree. It grows with the number of keys, as SigLIP's own loss does.

    Source: Zhai et al., SigLIP, ICCV 2023, section 3.2, its hard labels replaced by the teacher's probabilities.
    """
    teacher = logits_teacher.detach()
    target = teacher.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits_student, target, reduction="sum")
    entropy = F.binary_cross_entropy_with_logits(teacher, target, reduction="sum")
    return (cross_entropy - entropy) / len(logits_student)
