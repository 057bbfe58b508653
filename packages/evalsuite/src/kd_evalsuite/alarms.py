"""What makes a single model's score mean less than it seems: one answer to everything, unread replies, chance."""

from collections.abc import Sequence
from dataclasses import dataclass

from kd_evalsuite.records import Score
from kd_evalsuite.results import Result
from kd_evalsuite.single import DEGENERATE
from kd_evalsuite.stats import score_interval

UNREAD = 0.10  # a share of replies without an answer from which a score is about form as much as about sight


@dataclass(frozen=True)
class Alarm:
    """One remark about one model on one task."""

    model: str
    task: str
    kind: str
    says: str


def alarms(result: Result, tasks: Sequence[str]) -> list[Alarm]:
    """What a reader must know about a model's main scores on these tasks."""
    found = []
    for task in tasks:
        score, asked = result.mains[task], len(result.items.get(task, ()))
        kinds = {
            "one answer": _one_answer(score),
            "unread": _unread(score, asked or score.n),
            "chance": _chance(score),
        }
        found += [Alarm(result.label, task, kind, says) for kind, says in kinds.items() if says]
    return found


def _one_answer(score: Score) -> str:
    if score.top_answer_share < DEGENERATE:
        return ""
    return f"gives the same answer to {100 * score.top_answer_share:.3g} % of the items"


def _unread(score: Score, asked: int) -> str:
    share = score.n_unparsed / asked
    return f"no answer could be read from {100 * share:.3g} % of its replies" if share >= UNREAD else ""


def _chance(score: Score) -> str:
    if score.chance is None:
        return ""
    low, high = score_interval(score.value, score.stderr, score.best, score.n)
    if low <= score.chance <= high:
        return "cannot be told from guessing"
    return "is below guessing" if high < score.chance else ""
