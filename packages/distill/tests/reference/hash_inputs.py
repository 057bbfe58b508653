"""Inputs that need no random generator: what the reference values were computed on."""

import torch
import torch.nn.functional as F

MODULUS = 2**31


def u(n: int, d: int, stream: int) -> torch.Tensor:
    """float64 of shape (n, d) in [-0.5, 0.5), a hash of (row, column, stream)."""
    i, j = torch.arange(1, n + 1).view(-1, 1), torch.arange(1, d + 1).view(1, -1)
    h = (i * 1103515245 + j * 69069 + stream * 374761393) % MODULUS
    for _ in range(2):
        h = h ^ (h >> 13)
        h = (h * 1597334677 + 12345) % MODULUS
    return h.double() / MODULUS - 0.5


def embeddings(n: int, ds: int, dt: int) -> dict[str, torch.Tensor]:
    """Raw student and unit teacher embeddings of `n` pairs."""
    return {
        "image_student": u(n, ds, 1) + 1.5 * u(n, ds, 2),
        "text_student": u(n, ds, 1) + 1.5 * u(n, ds, 3),
        "image_teacher": F.normalize(u(n, dt, 1) + 1.2 * u(n, dt, 4), dim=-1),
        "text_teacher": F.normalize(u(n, dt, 1) + 1.2 * u(n, dt, 5), dim=-1),
    }


def head(ds: int, dt: int, stream: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (dt, ds) and bias (dt) of a projection head."""
    return u(dt, ds, stream) / ds**0.5, 0.01 * u(1, dt, stream + 50)[0]
