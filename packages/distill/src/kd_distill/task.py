"""What is trained: a student, the heads to its teachers, and the loss terms of a batch."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kd_distill.batch import Batch, TeacherInfo
from kd_distill.compare import Features, compare
from kd_distill.gather import rank_and_world
from kd_distill.heads import TeacherHeads
from kd_distill.layers import PatchLayer
from kd_distill.losses import PATCH_TERMS, TEACHER_TERMS, TEXT_TERMS, Term, mix, terms_named
from kd_distill.losses.embeddings import Embeddings, map_tensors
from kd_distill.losses.rows import Rows, blocks
from kd_distill.losses.terms import Options
from kd_distill.models import Clip, encode_text
from kd_distill.precision import Precision, autocast
from kd_distill.towers import image_features
from kd_distill.views import Preprocessing, stream

MAX_LOG_SCALE = math.log(100)
SIGMOID_BIAS = -10.0  # SigLIP's initial one


class DistillationTask(nn.Module):
    """A CLIP student and what its loss needs.

    Args:
        student: An open_clip CLIP model.
        terms: Names of the loss terms, see `losses.TERMS`.
        student_width: Of its embeddings.
        preprocessing: Of the student: its mean and std normalise the bytes of a batch.
        teachers: In the order of `Batch.teachers`.
        student_grid: Rows, columns and width of its patch tokens; for terms that read them, and for mfd.
        patch_layer: Where those are read, see `towers.image_features`; teachers must give them of the same.
        options: Choices within terms.
        icl_exp: Exponentiate the learned scales of ICL, cross-KD and AFD. CLIP-KD multiplies by their logarithm.
        mask: Share of the patches that mfd hides.
        seed: Of mfd's mask, with the step.
        precision: Of the towers: `fp32`, `bf16` or `fp16`. Everything behind them is in float32.

    Heads stand in the module, so that they are clipped, saved and resumed with the rest; create it under the same seed
    on all ranks. Where no term reads captions the text tower is not run, and stays as it was.
    """

    def __init__(
        self,
        student: Clip,
        terms: Collection[str],
        *,
        student_width: int,
        preprocessing: Preprocessing,
        teachers: Sequence[TeacherInfo] = (),
        student_grid: tuple[int, int, int] | None = None,
        patch_layer: PatchLayer = "penultimate",
        options: Options | None = None,
        icl_exp: bool = True,
        mask: float = 0.75,
        seed: int = 0,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        named = terms_named(terms)
        _refuse_what_does_not_fit(named, teachers, student_grid, patch_layer)
        self.student: Clip = student
        self.terms = tuple(named)
        self.teachers, self.student_grid = tuple(teachers), student_grid
        self.preprocessing, self.options = preprocessing, options or Options()
        self.icl_exp, self.patch_layer = icl_exp, patch_layer
        self.mask, self.seed, self.precision = mask, seed, precision
        self.reads_text = bool(TEXT_TERMS & set(named))
        reads = _reads(named)
        self.heads = nn.ModuleDict(
            {
                teacher.name: TeacherHeads(
                    teacher,
                    reads,
                    text=any(t.text and t.reads & {"projected", "raw"} for t in named.values()),
                    student_width=student_width,
                    patch_width=student_grid[2] if student_grid else None,
                    exp_scales=icl_exp,
                )
                for teacher in teachers
            }
        )
        if any(term.bias for term in named.values()) and getattr(student, "logit_bias", None) is None:
            self.sigmoid_bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))

    def forward(
        self, batch: Batch, *, terms: Collection[str] | None = None, step: int | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """The value of each term on `batch`: a rank's share, of which the mean over ranks is the value.

        Args:
            batch: The rank's pairs.
            terms: Those to compute; None for all.
            step: Which mfd's mask depends on.
        """
        active = self._active(terms)
        values: dict[str, Tensor] = {}
        with in_float32(batch):
            for part in self.parts(self.embed(batch, active, step=step), active):
                values |= {name: values[name] + value if name in values else value for name, value in part.items()}
        return values

    def embed(
        self, batch: Batch, active: Mapping[str, Term], *, step: int | None = None, chunk: int | None = None
    ) -> Embeddings:
        """Everything that the terms `active` read; with `chunk`, towers run over so many pairs at a time, see below."""
        _refuse_what_is_missing(batch, active, self.teachers)
        return compare(
            self._towers(batch, active, step, chunk),
            batch.teachers[: len(self.teachers)],
            [cast(TeacherHeads, self.heads[teacher.name]) for teacher in self.teachers],
            _reads(active),
            student_scale=self.student.logit_scale.exp(),
            student_bias=self._student_bias(),
            student_grid=self.student_grid,
        )

    def parts(self, embeddings: Embeddings, active: Mapping[str, Term]) -> Iterator[dict[str, Float[Tensor, ""]]]:
        """The terms in parts that add up: one of each block of rows, and one of what needs no blocks."""
        rows = embeddings.rows
        for side in ("image", "text"):
            here = {name: term for name, term in active.items() if side in term.anchors}
            for start, stop in blocks(rows, self.options.block) if here else ():
                block = Rows(embeddings, side, start, stop)
                share = (stop - start) / rows
                yield {name: term.compute(block) * (share / len(term.anchors)) for name, term in here.items()}
        if whole := {name: term for name, term in active.items() if not term.anchors}:
            yield {name: term.compute(embeddings, self.options) for name, term in whole.items()}

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Keep what cosines are multiplied with between 1 and 100, as CLIP does; but not CLIP-KD's logarithms."""
        for name, parameter in self.named_parameters():
            own = name.endswith(("cross_log_scale", "fused_log_scale"))
            if name == "student.logit_scale" or (own and self.icl_exp):
                parameter.clamp_(0, MAX_LOG_SCALE)

    def _student_bias(self) -> Tensor | float:
        own = getattr(self.student, "logit_bias", None)
        return getattr(self, "sigmoid_bias", 0.0) if own is None else own

    def _active(self, names: Collection[str] | None) -> dict[str, Term]:
        if names is None:
            return terms_named(self.terms)
        if unknown := set(names) - set(self.terms):
            raise ValueError(f"The task has the terms {list(self.terms)}, not {sorted(unknown)}.")
        return terms_named(names)

    def _towers(self, batch: Batch, active: Mapping[str, Term], step: int | None, chunk: int | None) -> Features:
        """Both towers; with `chunk`, activations are dropped and computed again on the way back, chunk by chunk."""
        masks = "masked" in _reads(active)
        whole = any(t.image and "masked" not in t.reads for t in active.values())
        patches: PatchLayer | None = self.patch_layer if any(t.patches for t in active.values()) else None
        text = any(t.text for t in active.values())
        keep = self._kept_patches(len(batch.images), step).to(batch.images.device) if masks else None

        def run(start: int, stop: int) -> Features:
            part = slice(start, stop)
            device = batch.images.device.type
            with autocast(device, self.precision):
                images = self.preprocessing.normalise(batch.images[part]).to(self.student.logit_scale.dtype)
                image, tokens = image_features(self.student, images, patches=patches) if whole else (None, None)
                masked = None if keep is None else image_features(self.student, images, keep=keep[part])[0]
                captions = encode_text(self.student, batch.tokens[part]) if text else None
            return Features(*(None if x is None else _at_least_float32(x) for x in (image, tokens, masked, captions)))

        b = len(batch.images)
        if chunk is None:
            return run(0, b)
        done = [checkpoint(run, start, stop, use_reentrant=False) for start, stop in blocks(b, chunk)]
        return Features(*(None if column[0] is None else torch.cat(column) for column in zip(*done, strict=True)))

    def _kept_patches(self, b: int, step: int | None) -> Int[Tensor, "b k"]:
        """Patches that the student sees for mfd: of the global batch's rows, those of this rank."""
        if step is None or self.student_grid is None:
            raise ValueError("mfd draws its mask from the step: pass step=.")
        p = self.student_grid[0] * self.student_grid[1]
        generator = stream(self.seed, "mfd", step)
        generator.bit_generator.advance(rank_and_world()[0] * b * p)  # type: ignore[attr-defined]
        drawn = torch.from_numpy(generator.random((b, p)))
        return drawn.argsort(dim=1)[:, : max(1, round((1 - self.mask) * p))]


def loss_and_gradients(
    task: DistillationTask,
    batch: Batch,
    weights: Mapping[str, float],
    *,
    step: int | None = None,
    chunk: int | None = None,
    grad_scale: float = 1.0,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighed loss and its terms; the gradient is added to `.grad` of what is trained.

    Args:
        task: Student and heads.
        batch: The rank's pairs.
        weights: Of each of the task's terms; one of weight 0 is not computed.
        step: Which mfd's mask depends on.
        chunk: Pairs that the towers take at a time. Their activations are then computed twice and stand in memory for
            one chunk only, and the gradient is that of the whole batch all the same (GradCache, Gao et al., 2021).
            Layers that look at other samples (BatchNorm) see the chunk.
        grad_scale: The gradient is multiplied by it, the values are not: for a scaler's fp16.

    The logits of a block of rows (`Options.block`) are freed before those of the next are computed: each block's
    gradient stops at the embeddings, and goes on to heads and towers once.
    """
    if weights.keys() != set(task.terms):
        raise ValueError(f"Loss terms and weights name different things: {sorted(task.terms)}, {sorted(weights)}.")
    weighed = {name: weight for name, weight in weights.items() if weight != 0}
    if not weighed:
        raise ValueError(f"Expected a term of a weight other than 0, got {dict(weights)}.")
    active = terms_named(weighed)
    with in_float32(batch):
        embeddings = task.embed(batch, active, step=step, chunk=chunk)
    cut: list[tuple[Tensor, Tensor]] = []

    def leaf(x: Tensor) -> Tensor:
        if not x.requires_grad:
            return x
        cut.append((x, x.detach().requires_grad_()))
        return cut[-1][1]

    terms = {name: embeddings.scales.student.new_zeros(()) for name in weighed}
    with in_float32(batch):
        for part in task.parts(map_tensors(embeddings, leaf), active):
            total = mix(part, {name: weighed[name] * grad_scale for name in part})
            if total.requires_grad:
                total.backward()
            terms |= {name: terms[name] + value.detach() for name, value in part.items()}
        reached = [(x, y.grad) for x, y in cut if y.grad is not None]
        if reached:
            torch.autograd.backward([x for x, _ in reached], [grad for _, grad in reached])
        return mix(terms, weighed), terms


def in_float32(batch: Batch) -> torch.autocast:
    """Whatever autocast stands around it, what is computed here keeps its type; towers set their own."""
    return torch.autocast(batch.images.device.type, enabled=False)


def _reads(terms: Mapping[str, Term]) -> frozenset[str]:
    return frozenset(chain.from_iterable(term.reads for term in terms.values()))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _refuse_what_does_not_fit(
    terms: Mapping[str, Term],
    teachers: Sequence[TeacherInfo],
    student_grid: tuple[int, int, int] | None,
    patch_layer: PatchLayer,
) -> None:
    names = [teacher.name for teacher in teachers]
    if len(set(names)) < len(names):
        raise ValueError(f"Expected each teacher once, got {names}.")
    if not teachers and (lonely := TEACHER_TERMS & terms.keys()):
        raise ValueError(f"The terms {sorted(lonely)} need a teacher; the cell names none.")
    if (PATCH_TERMS | {"mfd"}) & terms.keys() and student_grid is None:
        raise ValueError("Terms of patches, and mfd, need the grid of the student's patch tokens: pass student_grid=.")
    for teacher in teachers:
        if PATCH_TERMS & terms.keys() and (teacher.grid is None or teacher.patch_width is None):
            raise ValueError(f"{sorted(PATCH_TERMS & terms.keys())} read patch tokens; {teacher.name} gives none.")
        if PATCH_TERMS & terms.keys() and teacher.patch_layer != patch_layer:
            raise ValueError(
                f"{sorted(PATCH_TERMS & terms.keys())} read patch tokens of the layer {patch_layer}; {teacher.name} "
                f"gives those of {teacher.patch_layer}. Set patch_layer, or make its cache anew."
            )
        if any(term.bias for term in terms.values()) and teacher.bias == 0:
            raise ValueError(f"sigmoid_kd compares sigmoids; {teacher.name} has no bias, so its say yes to every pair.")


def _refuse_what_is_missing(batch: Batch, terms: Mapping[str, Term], teachers: Sequence[TeacherInfo]) -> None:
    if not TEACHER_TERMS & terms.keys():
        return
    if len(batch.teachers) != len(teachers):
        raise ValueError(f"Expected targets of {len(teachers)} teachers in the batch, got {len(batch.teachers)}.")
    for teacher, targets in zip(teachers, batch.teachers, strict=True):
        if targets.text is None and (names := TEACHER_TERMS & TEXT_TERMS & terms.keys()):
            raise ValueError(f"The terms {sorted(names)} compare captions; the targets of {teacher.name} have none.")
        if targets.patches is None and (names := PATCH_TERMS & terms.keys()):
            raise ValueError(f"The terms {sorted(names)} read patch tokens; the targets of {teacher.name} have none.")
