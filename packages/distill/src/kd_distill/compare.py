"""From what towers give to what terms read: heads, unit length, and one gathering over ranks, all in float32."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from kd_distill.batch import Targets
from kd_distill.gather import gather, rank_and_world, sum_over_ranks
from kd_distill.heads import TeacherHeads
from kd_distill.losses import Statistics, augmented, resample, sums_of
from kd_distill.losses.embeddings import Embeddings, Scales, Side

Pairs = tuple[tuple[Tensor, Tensor], ...]
GATHERED = ("student", "teachers", "projected_all", "fused")


class Features(NamedTuple):
    """What the student's towers give, not normalised, float32 or wider: None where no term reads it."""

    image: Float[Tensor, "b d"] | None
    patches: Float[Tensor, "b p w"] | None
    masked: Float[Tensor, "b d"] | None
    text: Float[Tensor, "b d"] | None


def compare(
    features: Features,
    targets: Sequence[Targets],
    heads: Sequence[TeacherHeads],
    reads: Collection[str],
    *,
    student_scale: Float[Tensor, ""],
    student_bias: Float[Tensor, ""] | float,
    student_grid: tuple[int, int, int] | None,
) -> Embeddings:
    """The `Embeddings` of a rank's pairs, with what `reads` names and nothing else.

    Args:
        features: Of the student.
        targets: Of each teacher.
        heads: To each teacher.
        reads: See `losses.table.Term`.
        student_scale: Multiplies the student's cosines.
        student_bias: Is added to them by sigmoid terms.
        student_grid: Rows, columns and width of `features.patches`.
    """
    known = next(x for x in features if x is not None)
    targets = [_like(target, known) for target in targets]
    image = _local_side(features.image, [t.image for t in targets], heads, "image", reads)
    texts = [] if features.text is None else [t.text for t in targets if t.text is not None]
    text = _local_side(features.text, texts, heads, "text", reads)
    image_of_all, text_of_all = _gathered(image, text)
    patches, plain, standardised_patches = _patch_pairs(features.patches, targets, heads, reads, student_grid)
    return Embeddings(
        image=image_of_all,
        text=text_of_all,
        scales=_scales(student_scale, student_bias, heads, reads),
        first=rank_and_world()[0] * len(known),
        rows=len(known),
        masked=tuple(F.normalize(h.image(features.masked), dim=-1) for h in heads) if "masked" in reads else (),
        standardised=_standardised(features.image, targets, heads) if "standardised" in reads else (),
        patches=patches,
        standardised_patches=standardised_patches,
        plain_patches=plain,
    )


def _like(target: Targets, x: Tensor) -> Targets:
    parts = (target.image, target.text, target.patches)
    return Targets(*(None if part is None else part.to(x.dtype) for part in parts))  # type: ignore[arg-type]


def _local_side(
    features: Tensor | None,
    teachers: Sequence[Tensor],
    heads: Sequence[TeacherHeads],
    name: str,
    reads: Collection[str],
) -> dict[str, tuple[Tensor, ...]]:
    """The rank's own embeddings of one modality, by the names of `Side`."""
    side: dict[str, tuple[Tensor, ...]] = {"teachers": tuple(teachers) if "teachers" in reads else ()}
    if features is None:
        return side
    z = F.normalize(features, dim=-1)
    if "student" in reads:
        side["student"] = (z,)
    if {"projected", "projected_all", "raw"} & set(reads):
        side["raw"] = tuple((h.image if name == "image" else h.text)(features) for h in heads)
        side["projected"] = tuple(F.normalize(y, dim=-1) for y in side["raw"])
    if "projected_all" in reads:
        side["projected_all"] = side["projected"]
    if "fused" in reads:
        layers = [h.fuse_image if name == "image" else h.fuse_text for h in heads]
        side["fused"] = tuple(
            augmented(z, t, layer.weight, layer.bias) for t, layer in zip(teachers, layers, strict=True)
        )
    return side


def _gathered(*sides: dict[str, tuple[Tensor, ...]]) -> list[Side]:
    """The sides with what is compared across pairs gathered from all ranks, in one collective."""
    everyone = iter(gather([x for side in sides for name in GATHERED for x in side.get(name, ())]))
    out = []
    for side in sides:
        of_all = {name: tuple(next(everyone) for _ in side.get(name, ())) for name in GATHERED}
        (student,) = of_all.pop("student") or (None,)
        local = {name: side.get(name, ()) for name in ("projected", "raw")}
        out.append(Side(student=student, **of_all, **local))
    return out


def _scales(
    student: Tensor, student_bias: Tensor | float, heads: Sequence[TeacherHeads], reads: Collection[str]
) -> Scales:
    return Scales(
        student=student,
        teachers=tuple(h.teacher.scale for h in heads),
        student_bias=student_bias,
        teacher_biases=tuple(h.teacher.bias for h in heads),
        cross=tuple(h.cross_scale for h in heads) if "cross" in reads else (),
        fused=tuple(h.fused_scale for h in heads) if "fused" in reads else (),
    )


def _standardised(image: Tensor | None, targets: Sequence[Targets], heads: Sequence[TeacherHeads]) -> Pairs:
    pairs = zip(heads, targets, strict=True)
    return tuple((h.standardised(image), _in_statistics(h.statistics, t.image)) for h, t in pairs)


def _in_statistics(statistics: Statistics, y: Tensor) -> Tensor:
    """`y` standardised; in training the statistics take it in first."""
    if statistics.training:
        statistics.update(sum_over_ranks(sums_of(y)))
    return statistics.standardise(y)


def _patch_pairs(
    tokens: Tensor | None,
    targets: Sequence[Targets],
    heads: Sequence[TeacherHeads],
    reads: Collection[str],
    student_grid: tuple[int, int, int] | None,
) -> tuple[Pairs, Pairs, Pairs]:
    """(the student's tokens, the teacher's at the same places): after the head; plain; standardised."""
    if tokens is None or student_grid is None:
        return (), (), ()
    rows, columns, _ = student_grid
    patches, plain, standardised = [], [], []
    for target, h in zip(targets, heads, strict=True):
        if target.patches is None or h.teacher.grid is None:
            raise ValueError(f"{h.teacher.name} gives no patch tokens.")
        y = resample(target.patches, h.teacher.grid, (rows, columns))
        if "patches" in reads:
            patches.append((h.patch(tokens), y))
        if "plain_patches" in reads:
            plain.append((tokens, y))
        if "standardised_patches" in reads:
            standardised.append((h.standardised_patch(tokens), _in_statistics(h.patch_statistics, y)))
    return tuple(patches), tuple(plain), tuple(standardised)
