"""What the data cannot tell: said as plainly as what they can."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kd_analysis.rows import Row
from kd_analysis.scores import Scored, other_versions
from kd_analysis.study import Claim, Study
from kd_analysis.tasks import task_of
from kd_analysis.trends import Trend
from kd_analysis.words import interval, number, signed

CONSTANT = 0.9  # a favourite answer given this often is the model's only one


@dataclass(frozen=True)
class Unresolved:
    """One thing that is left open, and what would settle it."""

    what: str
    why: str


def unresolved(
    study: Study,
    asked: Sequence[Claim],
    blind: Sequence[Claim],
    trends: Sequence[Trend],
    rows: Sequence[Row],
    chances: Mapping[str, float | None],
    models: Sequence[Scored],
) -> list[Unresolved]:
    """Everything that holds of this study."""
    return [
        *_differences(asked), *_other_tasks(asked), *_one_training(asked), *_few_teachers(study, trends),
        *_at_chance(rows, chances), *_not_seen(blind), *_constant(models), *_versions(models),
    ]  # fmt: skip


def _differences(asked: Sequence[Claim]) -> Iterable[Unresolved]:
    for c in asked:
        if c.verdict == "not resolvable":
            yield Unresolved(
                f"{c.better} against {c.worse} on {c.measure}: {signed(c.estimate.value)} points ({interval(c)})",
                _needed(c),
            )


def _needed(c: Claim) -> str:
    if math.isnan(c.detectable):
        return "The two are equal item by item: more items are needed to tell anything."
    return (
        f"A true difference below {number(c.detectable)} points would be missed more than one time in five; "
        f"{_times(c)} would be needed to find half of that."
    )


def _times(c: Claim) -> str:
    return "four times the items" if c.estimate.seeds == 1 else "four times the items and trainings"


def _other_tasks(asked: Sequence[Claim]) -> Iterable[Unresolved]:
    for c in asked:
        if c.over_tasks and c.verdict != "not resolvable" and c.over_tasks.verdict == "not resolvable":
            low, high = signed(c.over_tasks.low), signed(c.over_tasks.high)
            yield Unresolved(
                f"Whether {c.better} is {'ahead' if c.verdict == 'yes' else 'behind'} on other tasks of this kind",
                f"On these very tasks it is; with the tasks drawn anew the interval is {low} to {high}.",
            )


def _one_training(asked: Sequence[Claim]) -> Iterable[Unresolved]:
    if asked and any(c.estimate.seeds == 1 for c in asked):
        yield Unresolved(
            "How another training would have come out",
            "One training a cell. Intervals cover the items that were asked; three seeds or more would tell the rest.",
        )


def _few_teachers(study: Study, trends: Sequence[Trend]) -> Iterable[Unresolved]:
    if len(study.teachers) < 3:
        yield Unresolved(
            "A relation over teachers",
            f"{len(study.teachers)} teachers have no rank correlation; five could reach p = .017 at best, six .003.",
        )
    for t in trends:
        if t.spearman.n < 5:
            yield Unresolved(t.what, f"With {t.spearman.n} teachers no rank correlation can reach p < .05.")


def _at_chance(rows: Sequence[Row], chances: Mapping[str, float | None]) -> Iterable[Unresolved]:
    tasks = dict.fromkeys(t for r in rows for t in r.tasks)
    below = [
        task_of(t).title for t in tasks
        if (level := chances.get(t)) is not None
        and all(r.tasks[t].value - r.tasks[t].half <= level for r in rows if t in r.tasks)
    ]  # fmt: skip
    if below:
        yield Unresolved(
            f"Which encoder is better on {', '.join(below)}",
            "No model's interval lies above what guessing gives: the ranks of these scores mean nothing.",
        )


def _not_seen(blind: Sequence[Claim]) -> Iterable[Unresolved]:
    unclear = [c.measure for c in blind if c.verdict != "yes" or c.p_holm >= 1 - c.estimate.level]
    if unclear:
        yield Unresolved(
            f"What the encoder adds on {', '.join(unclear)}",
            "The VLM does not score clearly higher with the image than without it there.",
        )


def _constant(models: Sequence[Scored]) -> Iterable[Unresolved]:
    found: dict[str, list[str]] = {}
    for model in models:
        for task, score in model.scores.items():
            if score.top_answer_share is not None and score.top_answer_share >= CONSTANT and not model.blind:
                found.setdefault(task_of(task).title, []).append(model.ref.name)
    for task, names in found.items():
        yield Unresolved(
            f"{task} of {', '.join(names)}",
            f"One answer makes up {100 * CONSTANT:.0f} % or more of the replies: the score is that answer's share.",
        )


def _versions(models: Sequence[Scored]) -> Iterable[Unresolved]:
    for task, versions in other_versions(models).items():
        yield Unresolved(
            f"Comparisons on {task_of(task).title}",
            f"Models were scored on different data or by different protocols: {', '.join(versions)}. Score all on one.",
        )
