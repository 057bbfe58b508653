"""Judges: a reply and an item -> how good it is. Pure and total; shared by the tasks that mean the same thing."""

import math
import re

from kd_evalsuite import text
from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.vqa import normalise

UNREAD = Verdict(0.0, None)
ANLS_THRESHOLD = 0.5


def choice(reply: str, item: Item) -> Verdict:
    """Whether the reply chooses the gold letter; `text.letter` has the rules."""
    answer = text.letter(reply, item.choices)
    return UNREAD if answer is None else Verdict(float(answer in item.gold), answer)


def yes_no(reply: str, item: Item) -> Verdict:
    """Whether the reply says the gold Yes or No."""
    answer = text.yes_no(reply)
    return UNREAD if answer is None else Verdict(float(answer in item.gold), answer)


def exact(reply: str, item: Item) -> Verdict:
    """Whether the reply is a gold answer, but for case, outer spaces and final dots."""
    answer = text.short(reply)
    return UNREAD if answer is None else Verdict(float(answer in map(text.short, item.gold)), answer)


def relaxed(reply: str, item: Item) -> Verdict:
    """ChartQA's relaxed accuracy: numbers within 5 % of the gold, other text equal but for case.

    As in Cambrian: percent signs and thousands separators make a text, so `5%` is not 5, and years get the tolerance.
    """
    answer = reply.strip()
    if not answer:
        return UNREAD
    return Verdict(float(any(_close(answer, gold) for gold in item.gold)), answer.lower())


def _close(answer: str, gold: str) -> bool:
    a, g = text.number(answer), text.number(gold)
    if a is not None and g is not None:
        return abs(a - g) <= 0.05 * abs(g)
    return answer.lower() == gold.strip().lower()


def exact_or_close(reply: str, item: Item) -> Verdict:
    """MMMU's open questions in Cambrian: equal text, or numbers within 5 % of the gold."""
    answer = text.short(reply)
    if answer is None:
        return UNREAD
    return Verdict(float(any(_close(answer, text.short(gold) or "") for gold in item.gold)), answer)


def vqa_accuracy(reply: str, item: Item) -> Verdict:
    """VQA soft accuracy: the mean over the annotators of min(1, matches among the others / 3).

    With ten annotators 0, 0.3, 0.6, 0.9 and 1 for 0, 1, 2, 3 and more matches.

    Source: Antol et al., VQA, ICCV 2015; Singh et al., TextVQA, CVPR 2019.
    """
    answer = normalise(reply)
    if not answer:
        return UNREAD
    matches = sum(answer == normalise(gold) for gold in item.gold)
    n = len(item.gold)
    others = (matches - 1) * matches if matches <= 3 else 3 * matches
    return Verdict((others / 3 + (n - matches) * min(1.0, matches / 3)) / n, answer)


def anls(reply: str, item: Item) -> Verdict:
    """Normalised Levenshtein similarity to the nearest gold, 0 below one half.

    Both sides are lower-cased with single spaces, and the length is that of these texts: padding changes nothing.
    Exactly one half is kept, as the public suites do.

    Source: Biten et al., ST-VQA, ICCV 2019; Mathew et al., DocVQA, WACV 2021.
    """
    from rapidfuzz.distance import Levenshtein

    answer = text.collapse(reply)
    best = max((Levenshtein.normalized_similarity(answer, text.collapse(gold)) for gold in item.gold), default=0.0)
    score = best if best >= ANLS_THRESHOLD else 0.0
    return Verdict(score, answer) if answer else Verdict(score, None)


def ocr_exact(reply: str, item: Item) -> Verdict:
    """Whether the reply is a gold text, after OCRBench's normalisation; Cambrian's default."""
    answer, golds = _ocr(reply, item)
    return Verdict(float(answer in golds), answer) if answer else UNREAD


def ocr_contains(reply: str, item: Item) -> Verdict:
    """Whether a gold text stands in the reply, after OCRBench's normalisation; the official metric.

    Source: Liu et al., OCRBench, 2023.
    """
    answer, golds = _ocr(reply, item)
    return Verdict(float(any(gold in answer for gold in golds)), answer) if answer else UNREAD


def _ocr(reply: str, item: Item) -> tuple[str, list[str]]:
    """Lower case and newlines as spaces; for handwritten formulas case is kept and spaces are removed."""
    formula = item.category == "Handwritten Mathematical Expression Recognition"

    def plain(raw: str) -> str:
        one = raw.strip().replace("\n", " ")
        return one.replace(" ", "") if formula else one.lower()

    return plain(reply[: text.LIMIT]), [g for g in map(plain, item.gold) if g]


def typed(reply: str, item: Item) -> Verdict:
    """MathVista: the option, or the number at the precision the item asks for, or the list.

    The number or list is found by rules (`text.last_number`), not by a language model; nothing found is no answer.
    Then the official comparison: integers truncated, floats rounded to `precision` digits, lists as written.

    Source: Lu et al., MathVista, ICLR 2024, `calculate_score.py`.
    """
    if item.choices:
        return choice(reply, item)
    kind = item.fields.get("answer_type", "text")
    answer = {"integer": _integer, "float": _float, "list": _list}.get(kind, _plain)(reply, item)
    return UNREAD if answer is None else Verdict(float(answer in item.gold), answer)


def _integer(reply: str, item: Item) -> str | None:
    found = text.last_number(reply)
    value = text.number(found) if found else None
    return str(int(value)) if value is not None and math.isfinite(value) else None


def _float(reply: str, item: Item) -> str | None:
    found = text.last_number(reply)
    value = text.number(found) if found else None
    if value is None or not math.isfinite(value):
        return None
    return str(round(value, int(item.fields.get("precision") or 2)))


def _list(reply: str, item: Item) -> str | None:
    match = re.search(r"\[[^\[\]]{1,400}\]", reply[: text.LIMIT])
    return "[" + ", ".join(part.strip() for part in match[0][1:-1].split(",")) + "]" if match else None


def _plain(reply: str, item: Item) -> str | None:
    return reply.strip() or None
