"""GD: the student's contrastive loss shall have the teacher's gradients."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def contrastive_gradients(
    anchors: Float[Tensor, "b d"],
    keys: Float[Tensor, "n d"],
    labels: Int[Tensor, " b"],
    scale: Float[Tensor, ""] | float,
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "n d"]]:
    """Gradients of sum_i -log softmax(scale * anchors keys^T)[i, labels_i] / n in closed form.

    With P the softmax and I the pairs, they are scale / n (P - I) keys and scale / n (P - I)^T anchors: two matrix
    products, no tensor above (b, n).

    Returns:
        Of the anchors; and of the keys, the share of these anchors (the shares of all anchors add up).
    """
    excess = (scale * anchors @ keys.T).softmax(dim=-1)
    excess = excess.scatter_add(1, labels[:, None], excess.new_full((len(labels), 1), -1.0)) * (scale / len(keys))
    return excess @ keys, excess.T @ anchors


def gradient_distillation(student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Mean over batch and dimension of the squared difference of two models' gradients, in [0, inf).

    GD is the sum of four: the gradients of anchors and keys, image to text and text to image, each model with its own
    scale. They fall with 1 / n, hence CLIP-KD's weight of 1e8.

    Source: Yang et al., CLIP-KD, CVPR 2024, "GD". Its code divides by the scale where the formula multiplies.
    """
    return torch.nn.functional.mse_loss(student, teacher.detach())
