"""The table of results of what the evaluation and `analysis cka` wrote in folders."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_analysis.names import parse
from kd_analysis.recipes import Recipe, length_of, told
from kd_analysis.results import CKA, ENCODER, NO_TEACHER, PARAMS, Result
from kd_analysis.scores import ZEROSHOT, Score
from kd_analysis.similarity import OWN, Record
from kd_analysis.study import ALONE, STUDENT, TEACHER, Entry, Study
from kd_analysis.tasks import IMAGENET, task_of

VLM_SEED = 1000  # a VLM's own seed counts this much more than its encoder's in a result's seed


def results_of(
    study: Study,
    records: Sequence[Record],
    epochs: float = 0.0,
    recipes: Mapping[str, Recipe] | None = None,
    sizes: Mapping[str, float] | None = None,
) -> list[Result]:
    """One result a score and a CKA of a student with its own teacher (debiased).

    Args:
        study: What was scored; blind VLMs stay out.
        records: Similarities; may be empty.
        epochs: The length of the students' schedule, which names do not tell; 0 if unknown.
        recipes: What recipes say beside their names.
        sizes: Parameters in millions by digest, where known; those of pretrained encoders are told.
    """
    said = recipes or {}
    found = []
    for entry in (*study.zeroshot, *study.vlms, *study.inside):
        length = length_of(entry.encoder.recipe, said, epochs)
        found += [_result(entry, score, length, study.variant) for score in entry.scored.scores.values()]
    found += _similarities(records, epochs, said)
    found += _sizes(study, said, sizes or {})
    return told(found, said)


def _sizes(study: Study, recipes: Mapping[str, Recipe], sizes: Mapping[str, float]) -> Iterable[Result]:
    """Of teachers, and of students that count as pretrained encoders."""
    for entry in study.zeroshot:
        recipe = recipes.get(entry.encoder.recipe)
        pretrained = entry.role == TEACHER or (recipe is not None and bool(recipe.encoder))
        if pretrained and entry.scored.ref.sha256 in sizes:
            size, name = sizes[entry.scored.ref.sha256], entry.scored.ref.name
            yield Result(**_encoder(entry, 0.0), task=ENCODER, metric=PARAMS, value=size, source=name)


def _result(entry: Entry, score: Score, epochs: float, shared: str) -> Result:
    vlm = entry.scored.name if score.benchmark != ZEROSHOT else None
    task = IMAGENET if score.benchmark == ZEROSHOT else score.benchmark
    unit = task_of(task).best / score.best
    seed = entry.seed[0] + (VLM_SEED * entry.seed[1] if len(entry.seed) > 1 else 0)
    plain = entry.variant or shared  # of a VLM whose name has not the agreed form
    return Result(
        framework=(vlm.recipe or plain) if vlm else "", llm=vlm.lm if vlm else "", **_encoder(entry, epochs),
        seed=seed, task=task, value=score.value * unit, se=score.stderr * unit, n=score.n, source=entry.scored.key,
    )  # fmt: skip


def _encoder(entry: Entry, epochs: float) -> dict[str, Any]:
    """A student's place in the study, or the pretrained encoder itself."""
    encoder = entry.encoder
    if entry.role not in (STUDENT, ALONE):
        return {"teacher": encoder.family or encoder.full}
    return {
        "teacher": NO_TEACHER if encoder.alone else encoder.family, "student": encoder.arch, "loss": encoder.recipe,
        "epochs": epochs, "epoch": float(encoder.epoch) or epochs,
    }  # fmt: skip


def _similarities(records: Sequence[Record], otherwise: float, recipes: Mapping[str, Recipe]) -> Iterable[Result]:
    for r in records:
        student, teacher = parse(r.student), parse(r.teacher)
        epochs = length_of(student.recipe, recipes, otherwise)
        if r.relation == OWN and r.estimator == "debiased" and r.value is not None and student.kind == "student":
            yield Result(
                teacher=teacher.family or teacher.full, student=student.arch, loss=student.recipe, epochs=epochs,
                epoch=float(student.epoch) or epochs, seed=student.seed,
                task=IMAGENET if r.task == ZEROSHOT else r.task, metric=CKA, value=r.value,
                se=math.nan if r.se is None else r.se, n=r.n, source=f"{r.tap}, debiased",
            )  # fmt: skip
