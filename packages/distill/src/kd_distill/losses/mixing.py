"""The one place where terms are weighed."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor


def mix(terms: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float]) -> Float[Tensor, ""]:
    """Sum `weights[name] * terms[name]`. Every weight must name a term, and every term must have a weight."""
    if terms.keys() != weights.keys():
        raise ValueError(
            f"Loss terms and weights name different things: terms {sorted(terms)}, weights {sorted(weights)}."
        )
    return torch.stack([weights[name] * term for name, term in sorted(terms.items())]).sum()
