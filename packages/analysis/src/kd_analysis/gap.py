"""How far behind its teacher a student stays, from the items: the gap and student / teacher, both paired."""

from collections.abc import Sequence
from dataclasses import dataclass

from kd_analysis.claims import Resampling, body, claim, grouped, lineage, of_role, paired, scaled
from kd_analysis.clustered import average, mean_suite
from kd_analysis.stats import Estimate, bootstrap_ratio, items_and_seeds, normal
from kd_analysis.study import ALONE, STUDENT, TEACHER, Claim, Entry, Study

BEHIND = "How far behind its teacher is the student?"


@dataclass(frozen=True)
class Gap:
    """A student beside its teacher on one measure, in points.

    Attributes:
        ratio: Student over teacher; its interval is paired over items, and covers no other training.
        alone: The same student without a teacher.
    """

    measure: str
    student: str
    teacher: str
    student_score: Estimate
    teacher_score: Estimate
    gap: Claim
    ratio: Estimate
    alone: float | None

    @property
    def relative(self) -> float:
        """Student over teacher."""
        return self.ratio.value


def gaps(study: Study, how: Resampling) -> list[Gap]:
    """Every student with a teacher that was scored beside it."""
    found = []
    for measure, entries in study.measures.items():
        students = grouped(of_role(entries, STUDENT), lambda e: f"{lineage(e)}, from {e.encoder.family}")
        for name, group in students.items():
            family, variant = group[0].encoder.family, group[0].variant
            own = [e for e in of_role(entries, TEACHER) if e.encoder.family == family and e.variant == variant]
            if own:
                bodies = [100 * average(e.suite) for e in of_role(entries, ALONE) if body(e) == body(group[0])]
                found.append(
                    _gap(measure, name, family, own, group, sum(bodies) / len(bodies) if bodies else None, how)
                )
    return found


def _gap(
    measure: str,
    student: str,
    teacher: str,
    own: Sequence[Entry],
    group: Sequence[Entry],
    alone: float | None,
    how: Resampling,
) -> Gap:
    gap = claim(how, BEHIND, f"teacher {teacher}", student, measure, paired(own, group))
    above, below = (mean_suite([e.suite for e in side]) for side in (group, own))
    rng = how.rng("ratio", student, measure)
    ratio = bootstrap_ratio(above, below, rng, n_bootstrap=how.n_bootstrap, level=how.level)
    scores = level_of(group, how.level), level_of(own, how.level)
    return Gap(measure, student, teacher, *scores, gap, ratio, alone)


def level_of(entries: Sequence[Entry], level: float) -> Estimate:
    """The score of a cell in points, with its interval over items (and seeds, where there are several)."""
    suites = [e.suite for e in entries]
    estimate = normal(suites[0], level) if len(suites) == 1 else items_and_seeds(suites, level)
    return scaled(estimate, 100)
