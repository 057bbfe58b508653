"""What one step sees: pairs as the student reads them, and what its teachers say of the same views."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from kd_distill.layers import PatchLayer


@dataclass(frozen=True)
class Targets:
    """One teacher's embeddings of a batch, unit length, float32; no gradient reaches them.

    `text` is None where only images were embedded, `patches` (not normalised) where no term reads patch tokens.
    """

    image: Float[Tensor, "b dt"]
    text: Float[Tensor, "b dt"] | None = None
    patches: Float[Tensor, "b pt wt"] | None = None


@dataclass(frozen=True)
class TeacherInfo:
    """What a student's loss must know of a teacher.

    Args:
        name: Registered name.
        width: Of its embeddings.
        scale: What it multiplies its cosines with.
        bias: What it adds to them (SigLIP); 0 for CLIP.
        grid: Rows and columns of its patch tokens; None where they are not read.
        patch_width: Of its patch tokens.
        patch_layer: Where they are read, see `towers.image_features`.
    """

    name: str
    width: int
    scale: float
    bias: float = 0.0
    grid: tuple[int, int] | None = None
    patch_width: int | None = None
    patch_layer: PatchLayer | None = None


@dataclass(frozen=True)
class Rendering:
    """The pairs of a batch as one more model reads them: the same crops in its size, its token ids."""

    images: UInt8[Tensor, "b 3 h2 w2"]
    tokens: Int[Tensor, "b t2"]


@dataclass(frozen=True)
class Batch:
    """Image-text pairs of one rank: images as bytes (normalised on the device), token ids, the teachers' targets."""

    images: UInt8[Tensor, "b 3 h w"]
    tokens: Int[Tensor, "b t"]
    teachers: tuple[Targets, ...] = ()
    keys: tuple[str, ...] = ()
    others: tuple[Rendering, ...] = ()


class Stream(Protocol):
    """What a training takes its batches from."""

    def steps(
        self, start: int, stop: int, *, batch_size: int, order_seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """This rank's part of the batches of steps `start` to `stop`."""
