"""The study's questions as paired differences with intervals: the answer and the checks."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kd_analysis.clustered import Clustered, Suite, average, difference, mean_suite
from kd_analysis.stats import (
    Estimate,
    bootstrap,
    holm,
    items_and_seeds,
    minimum_detectable_difference,
    sign_test,
    wilcoxon,
)
from kd_analysis.study import ALONE, STUDENT, TEACHER, Claim, Entry, Study, TaskSigns
from kd_analysis.tasks import in_order, task_of
from kd_analysis.words import TEACHERS_DIFFER

BETTER_TEACHER = "Did the better teacher make the better student?"
TEACHER_ABOVE_ALONE = "Is the teacher above the student alone?"
DISTILLED_ABOVE_ALONE = "Is the distilled student above the same student without a teacher?"
ABOVE_BLIND = "Does the VLM use the image?"


@dataclass(frozen=True)
class Resampling:
    """How intervals are made. Each claim draws from its own stream, so the order of claims changes nothing."""

    seed: int
    n_bootstrap: int
    level: float

    def rng(self, *purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32("|".join(purpose).encode())])


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The estimate in another unit."""
    names = ("value", "se", "low", "high", "se_items", "se_seeds")
    known = {name: value for name in names if (value := getattr(estimate, name)) is not None}
    return replace(estimate, **{name: factor * value for name, value in known.items()})


def claim(how: Resampling, question: str, better: str, worse: str, measure: str, differences: Sequence[Suite]) -> Claim:
    """A claim from paired differences, one a seed: bootstrap with one, items and seeds with several."""
    rng = how.rng(question, better, worse, measure)
    draw = partial(bootstrap, rng=rng, n_bootstrap=how.n_bootstrap, level=how.level)
    estimate = draw(differences[0]) if len(differences) == 1 else items_and_seeds(differences, how.level)
    points = scaled(estimate, 100)
    several = len(differences[0]) > 1
    mean = mean_suite(differences)
    return Claim(
        question=question,
        better=better,
        worse=worse,
        measure=measure,
        estimate=points,
        n_items=sum(task.n_items for task in differences[0].values()),
        detectable=minimum_detectable_difference(points.se, how.level, freedom=points.freedom),
        p=points.p,
        p_holm=points.p,
        by_seed=tuple(100 * average(d) for d in differences),
        over_tasks=scaled(draw(mean, resample_tasks=True), 100) if several else None,
        signs=signs(mean) if several else None,
    )


def signs(differences: Suite) -> TaskSigns:
    """How many tasks lie above, below and at zero, with the sign and Wilcoxon tests over tasks."""
    moves = [round(task.score, 12) for task in differences.values()]
    return TaskSigns(*sign_test(moves), wilcoxon(moves))


def adjusted(claims: Sequence[Claim]) -> list[Claim]:
    """The same claims with Holm's p over all of them."""
    p = holm({str(i): c.p for i, c in enumerate(claims)})
    return [replace(c, p_holm=p[str(i)]) for i, c in enumerate(claims)]


def paired(better: Sequence[Entry], worse: Sequence[Entry]) -> list[dict[str, Clustered]]:
    """Differences by seed. A side with a single entry stands against each seed of the other.

    Where both have several seeds, those in common are paired; without one in common, the means are compared (one
    difference, whose interval then covers items alone).
    """
    left, right = {e.seed: e.suite for e in better}, {e.seed: e.suite for e in worse}
    if len(left) == 1:
        return [difference(better[0].suite, s) for s in right.values()]
    if len(right) == 1:
        return [difference(s, worse[0].suite) for s in left.values()]
    if common := sorted(left.keys() & right.keys()):
        return [difference(left[seed], right[seed]) for seed in common]
    return [difference(mean_suite(list(left.values())), mean_suite(list(right.values())))]


# ---------------------------------------------------------------- groups of entries


def grouped(entries: Iterable[Entry], key: Callable[[Entry], str]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(key(entry), []).append(entry)
    return found


def lineage(entry: Entry) -> str:
    """What two students share when only their teacher differs."""
    return ", ".join(filter(None, (entry.encoder.arch, entry.encoder.recipe, entry.variant)))


def body(entry: Entry) -> str:
    """What a student with and one without a teacher share."""
    return ", ".join(filter(None, (entry.encoder.arch, entry.variant)))


def _variant(entry: Entry) -> str:
    return entry.variant


def of_role(entries: Iterable[Entry], role: str) -> list[Entry]:
    return [e for e in entries if e.role == role]


# ---------------------------------------------------------------- the answer


def answer(study: Study, how: Resampling) -> list[Claim]:
    """Students of the best teacher minus those of the last, for each measure: over all kinds of student, then each."""
    if len(study.teachers) < 2:
        return []
    best, last = study.teachers[0], study.teachers[-1]
    claims = []
    for measure, entries in study.measures.items():
        parts = _bylineage(entries, best, last)
        if len(parts) > 1 and (pooled := _pooled(parts)):
            who = f"mean of {len(parts)} kinds of student"
            claims.append(_teacher_claim(how, who, best, last, measure, pooled))
        claims += [_teacher_claim(how, name, best, last, measure, d) for name, d in parts.items()]
    return adjusted(claims)


def _bylineage(entries: Sequence[Entry], best: str, last: str) -> dict[str, list[dict[str, Clustered]]]:
    found = {}
    for name, group in grouped(of_role(entries, STUDENT), lineage).items():
        left, right = ([e for e in group if e.encoder.family == t] for t in (best, last))
        if left and right:
            found[name] = paired(left, right)
    return found


def _pooled(parts: dict[str, list[dict[str, Clustered]]]) -> list[dict[str, Clustered]]:
    """The mean over kinds of student, seed by seed; over the seeds' means where the numbers of seeds differ."""
    lists = list(parts.values())
    if len({len(p) for p in lists}) == 1:
        return [mean_suite(seed) for seed in zip(*lists, strict=True)]
    return [mean_suite([mean_suite(p) for p in lists])]


def _teacher_claim(
    how: Resampling, who: str, best: str, last: str, measure: str, differences: Sequence[Suite]
) -> Claim:
    return claim(how, BETTER_TEACHER, f"{who}, from {best}", f"from {last}", measure, differences)


def teachers_differ(study: Study, how: Resampling) -> list[Claim]:
    """The best teacher minus the last, for each measure."""
    if len(study.teachers) < 2:
        return []
    best, last = study.teachers[0], study.teachers[-1]
    claims = []
    for measure, entries in study.measures.items():
        for variant, group in grouped(of_role(entries, TEACHER), _variant).items():
            left, right = ([e for e in group if e.encoder.family == t] for t in (best, last))
            if left and right:
                names = (f"teacher {best}{_with(variant)}", f"teacher {last}")
                claims.append(claim(how, TEACHERS_DIFFER, *names, measure, paired(left, right)))
    return adjusted(claims)


# ---------------------------------------------------------------- the checks


def checks(study: Study, how: Resampling) -> list[Claim]:
    """Whether the study is in a state to answer: teachers teach, distillation helps, images are used."""
    return [
        *teachers_differ(study, how),
        *adjusted(list(_teachers_above_alone(study, how))),
        *adjusted(list(_distilled_above_alone(study, how))),
        *adjusted(list(_above_blind(study, how))),
    ]


def _teachers_above_alone(study: Study, how: Resampling) -> Iterable[Claim]:
    for measure, entries in study.measures.items():
        alone = grouped(of_role(entries, ALONE), lineage)
        for family in study.teachers:
            group = [e for e in of_role(entries, TEACHER) if e.encoder.family == family]
            for name, others in alone.items():
                same = [e for e in group if e.variant == others[0].variant]
                if same:
                    sides = (f"teacher {family}", f"{name}, no teacher")
                    yield claim(how, TEACHER_ABOVE_ALONE, *sides, measure, paired(same, others))


def _distilled_above_alone(study: Study, how: Resampling) -> Iterable[Claim]:
    for measure, entries in study.measures.items():
        students = grouped(of_role(entries, STUDENT), lambda e: f"{lineage(e)}, from {e.encoder.family}")
        for name, group in students.items():
            bodies = [e for e in of_role(entries, ALONE) if body(e) == body(group[0])]
            for alone_name, others in grouped(bodies, lineage).items():
                sides = (name, f"{alone_name}, no teacher")
                yield claim(how, DISTILLED_ABOVE_ALONE, *sides, measure, paired(group, others))


def _above_blind(study: Study, how: Resampling) -> Iterable[Claim]:
    seeing = {e.scored.ref.name: e for e in study.vlms}
    for blind in study.blind:
        if one := seeing.get(blind.scored.ref.name):
            both = sorted(one.suite.keys() & blind.suite.keys())
            left, right = ({t: s[t] for t in both} for s in (one.suite, blind.suite))
            yield claim(
                how, ABOVE_BLIND, f"VLM of {_title(one)}", "without the image", f"Average of {len(left)} tasks",
                [difference(left, right)],
            )  # fmt: skip


def by_task_above_blind(study: Study, how: Resampling) -> list[Claim]:
    """The same check task by task, adjusted over tasks."""
    seeing = {e.scored.ref.name: e for e in study.vlms}
    claims = []
    for blind in study.blind:
        if one := seeing.get(blind.scored.ref.name):
            for task in in_order(one.suite.keys() & blind.suite.keys()):
                gap = difference({task: one.suite[task]}, {task: blind.suite[task]})
                sides = (f"VLM of {_title(one)}", "without the image")
                claims.append(claim(how, ABOVE_BLIND, *sides, task_of(task).title, [gap]))
    return adjusted(claims)


def _title(entry: Entry) -> str:
    return f"{entry.encoder.label}{_with(entry.variant)}" if entry.encoder.kind != "other" else entry.scored.ref.name


def _with(variant: str) -> str:
    return f" in {variant}" if variant else ""
