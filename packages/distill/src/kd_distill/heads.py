"""What is learned beside the student: heads into a teacher's space, and the scales of terms that have their own."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kd_distill.batch import TeacherInfo
from kd_distill.losses import Statistics

LOG_SCALE = math.log(1 / 0.07)
FILE = "heads.safetensors"


class TeacherHeads(nn.Module):
    """One teacher's heads; those that `reads` asks for.

    Args:
        teacher: Its widths.
        reads: What the terms read, see `losses.table.Term`.
        text: Whether some term projects captions.
        student_width: Of the student's embeddings.
        patch_width: Of its patch tokens; None where no term reads them.
        exp_scales: Own scales are exp of what is learned. CLIP-KD multiplies by what is learned, ln(1 / 0.07) at first.

    As in CLIP-KD, `image` and `text` are linear where the widths differ and the identity where they are equal.
    """

    def __init__(
        self,
        teacher: TeacherInfo,
        reads: Collection[str],
        *,
        text: bool,
        student_width: int,
        patch_width: int | None,
        exp_scales: bool,
    ) -> None:
        super().__init__()
        width, projects = teacher.width, bool({"projected", "projected_all", "raw", "masked"} & set(reads))
        self.teacher, self._exp = teacher, exp_scales
        self.image: nn.Module = nn.Identity()
        self.text: nn.Module = nn.Identity()
        if projects and width != student_width:
            self.image = nn.Linear(student_width, width)
            if text:
                self.text = nn.Linear(student_width, width)
        if "cross" in reads:
            self.cross_log_scale = nn.Parameter(torch.tensor(LOG_SCALE))
        if "fused" in reads:
            self.fuse_image = nn.Linear(student_width + width, student_width)
            self.fuse_text = nn.Linear(student_width + width, student_width)
            self.fused_log_scale = nn.Parameter(torch.tensor(LOG_SCALE))
        if "standardised" in reads:
            self.standardised = nn.Linear(student_width, width)
            self.statistics = Statistics(width)
        if patch_width is not None and teacher.patch_width is not None:
            if "patches" in reads:
                self.patch = nn.Linear(patch_width, teacher.patch_width)
            if "standardised_patches" in reads:
                self.standardised_patch = nn.Linear(patch_width, teacher.patch_width)
                self.patch_statistics = Statistics(teacher.patch_width)

    @property
    def cross_scale(self) -> Float[Tensor, ""]:
        """What ICL and cross-KD multiply cosines with."""
        return self.cross_log_scale.exp() if self._exp else self.cross_log_scale

    @property
    def fused_scale(self) -> Float[Tensor, ""]:
        """What AFD multiplies cosines with."""
        return self.fused_log_scale.exp() if self._exp else self.fused_log_scale


Heads: TypeAlias = nn.ModuleDict  # of TeacherHeads, by the names of their teachers


def save_heads(folder: Path, heads: Heads) -> None:
    """Write the linear heads into the teachers' spaces beside a model (contract/README.md); no file where all are the
    identity.
    """
    from safetensors.torch import save_file

    linear = {
        f"{teacher}.{side}.{part}": tensor.detach().float().cpu().contiguous()
        for teacher, one in heads.items()
        for side in ("image", "text")
        for part, tensor in getattr(one, side).named_parameters()
    }
    if linear:
        save_file(linear, str(folder / FILE))
