"""The report's sentences, made from its numbers."""

import math
from collections.abc import Sequence

from kd_analysis.study import Claim, Study

TEACHERS_DIFFER = "Is the better teacher better?"

MINUS = "\u2212"


def number(value: float | None, digits: int = 1) -> str:
    """A number for the reader; `--` where there is none."""
    if value is None or value != value:  # NaN is unequal to itself
        return "--"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) != 0 else text.removeprefix("-")


def signed(value: float | None, digits: int = 1) -> str:
    """The same with its sign."""
    text = number(value, digits)
    return text if text[0] in f"{MINUS}-" else f"+{text}"


def interval(claim: Claim) -> str:
    return f"{signed(claim.estimate.low)} to {signed(claim.estimate.high)}"


def p_value(p: float | None) -> str:
    return "--" if p is None or p != p else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def headlines(claims: Sequence[Claim]) -> list[Claim]:
    """The first claim of each measure: over all kinds of student where there are several."""
    found: dict[str, Claim] = {}
    for claim in claims:
        found.setdefault(claim.measure, claim)
    return list(found.values())


def short_answer(claims: Sequence[Claim]) -> str:
    """A word or two for the whole question."""
    words = {c.verdict for c in headlines(claims)}
    if not words:
        return "Cannot be asked"
    if words == {"yes"}:
        return "Yes"
    if words == {"no"}:
        return "No, the other way round"
    if words == {"not resolvable"}:
        return "Not resolvable"
    if words == {"yes", "not resolvable"}:
        return "In part"
    return "In part, the other way round" if words == {"no", "not resolvable"} else "It depends on the measure"


def sentence(claims: Sequence[Claim], study: Study) -> str:
    """One sentence with the differences and their intervals."""
    if not claims:
        return (
            "The question needs two teachers with a zero-shot score and a student of each with the same architecture "
            f"and recipe; scored here: {len(study.teachers)} teacher{'s' if len(study.teachers) != 1 else ''}."
        )
    best, last = study.teachers[0], study.teachers[-1]
    parts = [
        f"{signed(c.estimate.value)} points on {_the(c.measure)} "
        f"({100 * c.estimate.level:.0f} % interval {interval(c)}: {SAYS[c.verdict]})"
        for c in headlines(claims)
    ]
    return f"Students of {best}, the better teacher, against students of {last}: {'; '.join(parts)}."


SAYS = {"yes": "ahead", "no": "behind", "not resolvable": "not resolvable"}


def _the(measure: str) -> str:
    return f"the {measure}" if measure.startswith("Average") else measure


def caveats(
    claims: Sequence[Claim], checks: Sequence[Claim], study: Study, reweighted: Sequence[str], has_cka: bool
) -> list[str]:
    """What the reader must know before believing the answer."""
    heads = headlines(claims)
    found = [_teachers_order(c) for c in checks if c.question == TEACHERS_DIFFER and c.verdict != "yes"]
    found += _about_seeds(heads, study)
    for c in heads:
        if c.verdict == "not resolvable":
            found.append(f"On {_the(c.measure)} {_could_have_found(c)}.")
        if c.over_tasks:
            low, high = signed(c.over_tasks.low), signed(c.over_tasks.high)
            found.append(f"For other tasks of this kind, not only other items, the interval is {low} to {high}.")
    if not study.vlms:
        found.append("No VLM was scored, so the tables and figures of the multimodal tasks are left out.")
    if not has_cka:
        found.append("No similarities were given, so the CKA section is left out.")
    if unknown := sorted({e.scored.ref.name for e in (*study.zeroshot, *study.vlms) if e.role == "other"}):
        found.append(f"It is not known which encoder stands behind {', '.join(unknown)}; they take part in no check.")
    if reweighted:
        found.append(
            f"The recorded score of {', '.join(reweighted)} weighs its items unequally; differences use the plain mean."
        )
    return found


def _could_have_found(c: Claim) -> str:
    if math.isnan(c.detectable):
        return "the two are equal item by item, which tells nothing of what this study could have found"
    return f"this study could have found a difference of {number(c.detectable)} points, four times out of five"


def _teachers_order(c: Claim) -> str:
    """The teacher that is better by zero-shot is not ahead on this measure: behind, or too close to tell."""
    how = "is behind" if c.verdict == "no" else "is not resolvably ahead of"
    return f"On {_the(c.measure)} {c.better} itself {how} {c.worse}: {signed(c.estimate.value)} points ({interval(c)})."


def _about_seeds(heads: Sequence[Claim], study: Study) -> list[str]:
    if not heads:
        return []
    seeds = {c.estimate.seeds for c in heads}
    if 1 in seeds:
        return [
            "One training a cell: the interval covers which items were asked, not how another training seed would have "
            "come out. Several seeds are needed for that."
        ]
    found = [
        f"The interval covers both which items were asked and how trainings differ, over {max(seeds)} seeds a cell."
    ]
    teachers = [e.encoder.family for e in study.zeroshot if e.role == "teacher"]
    if any(teachers.count(t) == 1 for t in teachers):
        found.append("Each teacher is a single training: it speaks for itself, not for every teacher of its size.")
    return found
