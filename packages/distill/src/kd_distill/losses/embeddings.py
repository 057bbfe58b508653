"""What the terms read: student's and teachers' embeddings of a rank's pairs, and of the global batch."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, cast

from jaxtyping import Float
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """One modality. Tuples have an entry for each teacher; what no term reads is empty or None.

    Args:
        student: Unit embeddings of the global batch; the rank's own rows stand among them.
        teachers: Likewise, each of its own width.
        projected: The rank's unit embeddings in each teacher's width.
        projected_all: Those of the global batch.
        raw: What the heads gave, not normalised.
        fused: AFD's unit embeddings of the global batch.
    """

    student: Float[Tensor, "n d"] | None = None
    teachers: tuple[Float[Tensor, "n dt"], ...] = ()
    projected: tuple[Float[Tensor, "b dt"], ...] = ()
    projected_all: tuple[Float[Tensor, "n dt"], ...] = ()
    raw: tuple[Float[Tensor, "b dt"], ...] = ()
    fused: tuple[Float[Tensor, "n d"], ...] = ()


@dataclass(frozen=True)
class Scales:
    """What cosines are multiplied with, and what is added to them. The student's are learned, the teachers' are not."""

    student: Float[Tensor, ""]
    teachers: tuple[float, ...] = ()
    student_bias: Float[Tensor, ""] | float = 0.0
    teacher_biases: tuple[float, ...] = ()
    cross: tuple[Float[Tensor, ""], ...] = ()  # ICL's and cross-KD's
    fused: tuple[Float[Tensor, ""], ...] = ()  # AFD's


@dataclass(frozen=True)
class Embeddings:
    """Everything that the loss of one rank depends on.

    Args:
        image: Of images.
        text: Of captions, empty where no term reads them.
        scales: Of all models.
        first: Place of the rank's first row in the global batch.
        rows: Number of the rank's rows.
        masked: As `Side.projected`, of images of which the student saw a part.
        standardised: (what the head gives, the standardised teacher) for each teacher.
        patches: (the student's tokens after the head, the teacher's at the same places).
        standardised_patches: Likewise, the teacher's standardised.
        plain_patches: (the student's tokens, the teacher's at the same places), each of its own width.
    """

    image: Side
    text: Side
    scales: Scales
    first: int
    rows: int
    masked: tuple[Float[Tensor, "b dt"], ...] = ()
    standardised: tuple[tuple[Tensor, Tensor], ...] = ()
    patches: tuple[tuple[Tensor, Tensor], ...] = ()
    standardised_patches: tuple[tuple[Tensor, Tensor], ...] = ()
    plain_patches: tuple[tuple[Tensor, Tensor], ...] = ()

    def own(self, everyone: Float[Tensor, "n d"]) -> Float[Tensor, "b d"]:
        """The rank's rows among those of all."""
        return everyone[self.first : self.first + self.rows]


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """`value` with each tensor in it replaced, through tuples and dataclasses."""
    mapped: Any = value
    if isinstance(value, Tensor):
        mapped = function(value)
    elif isinstance(value, tuple):
        mapped = tuple(map_tensors(part, function) for part in value)
    elif is_dataclass(value) and not isinstance(value, type):
        mapped = type(value)(**{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)})
    return cast(T, mapped)
