"""Judges: a reply and an item -> how good it is. Pure and total; shared by the tasks that mean the same thing."""

from kd_evalsuite import text
from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.protocols import mathvista, shared
from kd_evalsuite.vqa import normalise, soft_accuracy

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
    """VQA soft accuracy (`vqa.soft_accuracy`); a blank reply is unread, also where the answer is but an article."""
    if not reply.strip():
        return UNREAD
    answer = normalise(reply)
    return Verdict(soft_accuracy(answer, [normalise(gold) for gold in item.gold]), answer or reply.strip()[:80])


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
    answer = shared.ocr_plain(reply, item)
    return Verdict(float(answer in _ocr_golds(item)), answer) if answer else UNREAD


def ocr_contains(reply: str, item: Item) -> Verdict:
    """Whether a gold text stands in the reply, after OCRBench's normalisation; the official metric.

    Source: Liu et al., OCRBench, 2023.
    """
    answer = shared.ocr_plain(reply, item)
    return Verdict(float(any(gold in answer for gold in _ocr_golds(item))), answer) if answer else UNREAD


def _ocr_golds(item: Item) -> list[str]:
    return [plain for gold in item.gold if (plain := shared.ocr_plain(gold, item))]


def typed(reply: str, item: Item) -> Verdict:
    """MathVista: an option by its letter or text, else the number, list or text that `mathvista.extract` finds."""
    return choice(reply, item) if item.choices else mathvista.verdict(reply, item)
