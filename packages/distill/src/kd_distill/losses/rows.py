"""A block of anchors against all keys. Its logits and softmaxes are computed once, whichever terms read them."""

from collections.abc import Iterator
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from kd_distill.losses.embeddings import Embeddings, Side
from kd_distill.losses.relational import without_self

Logits = Float[Tensor, "c n"]


class Rows:
    """Anchors of one modality against the keys of the other: c rows of an (n, n) matrix that never stands as a whole.

    Args:
        embeddings: Of the rank.
        anchors: "image" or "text".
        start: First anchor among the rank's rows.
        stop: One behind the last.
    """

    def __init__(self, embeddings: Embeddings, anchors: str, start: int, stop: int) -> None:
        self._all, self._scales = embeddings, embeddings.scales
        self._anchor: Side = embeddings.image if anchors == "image" else embeddings.text
        self._other: Side = embeddings.text if anchors == "image" else embeddings.image
        self._local = slice(start, stop)
        self._global = slice(embeddings.first + start, embeddings.first + stop)

    @cached_property
    def labels(self) -> Int[Tensor, " c"]:
        """Column of each anchor's own pair."""
        device = self._scales.student.device
        return torch.arange(self._global.start, self._global.stop, device=device)

    @cached_property
    def cosines_student(self) -> Logits:
        """The student's anchors against its keys, times its scale."""
        return self._similarities(self._anchor.student, self._other.student, self._scales.student)

    @cached_property
    def log_student(self) -> Logits:
        """Log-probabilities."""
        return self.cosines_student.log_softmax(dim=-1)

    @cached_property
    def cosines_teachers(self) -> tuple[Logits, ...]:
        """Each teacher's anchors against its keys, times its scale."""
        sides = zip(self._anchor.teachers, self._other.teachers, self._scales.teachers, strict=True)
        return tuple(self._similarities(a, k, scale) for a, k, scale in sides)

    @cached_property
    def log_teachers(self) -> tuple[Logits, ...]:
        """Log-probabilities."""
        return tuple(logits.log_softmax(dim=-1) for logits in self.cosines_teachers)

    @cached_property
    def log_cross(self) -> tuple[Logits, ...]:
        """Log-probabilities of the student's projected anchors over each teacher's keys."""
        sides = zip(self._anchor.projected, self._other.teachers, self._scales.cross, strict=True)
        return tuple(F.log_softmax(c * a[self._local] @ k.T, dim=-1) for a, k, c in sides)

    @cached_property
    def log_fused(self) -> tuple[Logits, ...]:
        """Log-probabilities among AFD's fused embeddings."""
        sides = zip(self._anchor.fused, self._other.fused, self._scales.fused, strict=True)
        return tuple(F.log_softmax(self._similarities(a, k, scale), dim=-1) for a, k, scale in sides)

    @cached_property
    def log_self_student(self) -> Logits:
        """Log-probabilities of the student's anchors over the others of their own modality."""
        logits = self._similarities(self._anchor.student, self._anchor.student, self._scales.student)
        return without_self(logits, self.labels).log_softmax(dim=-1)

    @cached_property
    def log_self_teachers(self) -> tuple[Logits, ...]:
        """Likewise of each teacher."""
        sides = zip(self._anchor.teachers, self._scales.teachers, strict=True)
        logits = [self._similarities(z, z, scale) for z, scale in sides]
        return tuple(without_self(x, self.labels).log_softmax(dim=-1) for x in logits)

    @property
    def biased_student(self) -> Logits:
        """Logits of SigLIP's form, scale * cosine + bias."""
        return self.cosines_student + self._scales.student_bias

    @property
    def biased_teachers(self) -> tuple[Logits, ...]:
        """Likewise of each teacher."""
        biases = self._scales.teacher_biases
        return tuple(logits + bias for logits, bias in zip(self.cosines_teachers, biases, strict=True))

    def _similarities(self, anchors: Tensor | None, keys: Tensor | None, scale: Tensor | float) -> Logits:
        if anchors is None or keys is None:
            raise ValueError("The batch lacks the embeddings that a term compares.")
        return (scale * anchors[self._global]) @ keys.T


def blocks(rows: int, size: int | None) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of `size` rows, of all rows where it is None."""
    size = size or rows
    return ((start, min(start + size, rows)) for start in range(0, rows, size))
