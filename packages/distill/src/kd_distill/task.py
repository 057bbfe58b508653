"""What is trained: a student, the heads to its teacher's width, and the loss terms of a batch."""

from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kd_distill.batch import Batch, TeacherInfo
from kd_distill.losses import (
    contrastive,
    contrastive_relational,
    feature_distillation,
    interactive_contrastive,
    mix,
)
from kd_distill.models import Clip, encode_text
from kd_distill.views import Preprocessing

TERMS = ("task", "ckd", "fd", "fd_image", "icl")
TEACHER_TERMS = frozenset(TERMS) - {"task"}
TEXT_TERMS = frozenset(TERMS) - {"fd_image"}  # what reads captions
ICL_LOG_SCALE = 2.6592600369327783  # ln(1 / 0.07)


class DistillationTask(nn.Module):
    """A CLIP student and what its loss needs.

    Args:
        student: An open_clip CLIP model.
        terms: Names of the loss terms, a subset of `TERMS`.
        preprocessing: Of the student: its mean and std normalise the bytes of a batch.
        teachers: None or one so far.
        fd_reduction: `mean_nd` or `mean_n`, see `feature_distillation`.
        icl_exp: Exponentiate ICL's learnable scale. CLIP-KD multiplies by its logarithm.
        precision: Of the towers, `fp32` or `bf16`.

    The heads stand in the module, so that they are clipped, saved and resumed with the rest. As in CLIP-KD there is a
    head for each modality where the widths differ, and none where they are equal. Where no term reads captions the text
    tower is not run, and stays as it was.
    """

    def __init__(
        self,
        student: Clip,
        terms: Collection[str],
        *,
        student_width: int,
        preprocessing: Preprocessing,
        teachers: Sequence[TeacherInfo] = (),
        fd_reduction: str = "mean_nd",
        icl_exp: bool = True,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        unknown = set(terms) - set(TERMS)
        if unknown:
            raise ValueError(f"Unknown loss terms {sorted(unknown)}. Known: {', '.join(TERMS)}.")
        teacher_width = teachers[0].width if teachers else None
        if teacher_width is None and TEACHER_TERMS & set(terms):
            raise ValueError(f"The terms {sorted(TEACHER_TERMS & set(terms))} need a teacher; the cell names none.")
        self.student: Clip = student
        self.terms = tuple(sorted(terms))
        self.bf16 = precision == "bf16"
        self.preprocessing, self.teacher_scale = preprocessing, teachers[0].scale if teachers else 1.0
        self.fd_reduction, self.icl_exp = fd_reduction, icl_exp
        self.reads_text = bool(TEXT_TERMS & set(terms))
        self.image_head: nn.Module = nn.Identity()
        self.text_head: nn.Module = nn.Identity()
        if teacher_width is not None and teacher_width != student_width:
            if {"fd", "fd_image", "icl"} & set(terms):
                self.image_head = nn.Linear(student_width, teacher_width)
            if {"fd", "icl"} & set(terms):
                self.text_head = nn.Linear(student_width, teacher_width)
        if "icl" in terms:
            self.icl_log_scale = nn.Parameter(torch.tensor(ICL_LOG_SCALE))

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The value of each term on `batch`, in float32 whatever the precision of the towers."""
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.bf16):
            image = self.student.encode_image(self.preprocessing.normalise(batch.images))
            text = encode_text(self.student, batch.tokens) if self.reads_text else None
        image, text = _at_least_float32(image), None if text is None else _at_least_float32(text)
        values = self._pair_terms(image, text, batch) if text is not None else {}
        if "fd_image" in self.terms:
            z_image = F.normalize(self.image_head(image), dim=-1)
            values["fd_image"] = feature_distillation(z_image, batch.teachers[0].image, self.fd_reduction)
        return values

    def _pair_terms(self, image: Tensor, text: Tensor, batch: Batch) -> dict[str, Tensor]:
        logits = self.student.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        values = {"task": contrastive(logits)} if "task" in self.terms else {}
        if not batch.teachers or batch.teachers[0].text is None:
            return values
        return values | self._teacher_terms(logits, image, text, batch.teachers[0].image, batch.teachers[0].text)

    def _teacher_terms(
        self, logits: Tensor, image: Tensor, text: Tensor, image_teacher: Tensor, text_teacher: Tensor
    ) -> dict[str, Tensor]:
        values = {}
        if "ckd" in self.terms:
            values["ckd"] = contrastive_relational(logits, self.teacher_scale * image_teacher @ text_teacher.T)
        if not {"fd", "icl"} & set(self.terms):
            return values
        z_image = F.normalize(self.image_head(image), dim=-1)
        z_text = F.normalize(self.text_head(text), dim=-1)
        if "fd" in self.terms:
            values["fd"] = feature_distillation(z_image, image_teacher, self.fd_reduction)
            values["fd"] = values["fd"] + feature_distillation(z_text, text_teacher, self.fd_reduction)
        if "icl" in self.terms:
            scale = self.icl_log_scale.exp() if self.icl_exp else self.icl_log_scale
            values["icl"] = interactive_contrastive(z_image, z_text, image_teacher, text_teacher, scale)
        return values


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def loss_and_gradients(
    task: DistillationTask, batch: Batch, weights: Mapping[str, float]
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighed loss and its terms; the gradient is added to `.grad` of what is trained."""
    terms = task(batch)
    loss = mix(terms, weights)
    loss.backward()
    return loss.detach(), {name: term.detach() for name, term in terms.items()}
