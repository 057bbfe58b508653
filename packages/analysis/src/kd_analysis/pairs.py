"""Every pair of teachers, not only the best and the last: their students paired over items, Holm over all of them."""

import itertools

from kd_analysis.claims import Resampling, adjusted, claim, grouped, lineage, of_role, paired
from kd_analysis.study import STUDENT, Claim, Study

EACH_PAIR = "Does the better teacher of each pair make the better student?"


def pairs_of_teachers(study: Study, how: Resampling) -> list[Claim]:
    """One claim a pair, kind of student and measure; nothing below three teachers, where `answer` says all."""
    if len(study.teachers) < 3:
        return []
    claims = []
    for measure, entries in study.measures.items():
        for name, group in grouped(of_role(entries, STUDENT), lineage).items():
            for better, worse in itertools.combinations(study.teachers, 2):
                left, right = ([e for e in group if e.encoder.family == t] for t in (better, worse))
                if left and right:
                    sides = (f"{name}, from {better}", f"from {worse}")
                    claims.append(claim(how, EACH_PAIR, *sides, measure, paired(left, right)))
    return adjusted(claims)
