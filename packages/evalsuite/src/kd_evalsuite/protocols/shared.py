"""Metrics of open answers that several suites have in common.

Source: ChartQA: github.com/google-research/pix2struct, `metrics.py`; Masry et al., section 5.1. DocVQA: the ANLS of
rrc.cvc.uab.es, task 17. TextVQA: github.com/facebookresearch/mmf. OCRBench: github.com/Yuliang-Liu/MultimodalOCR.
"""

from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.text import LIMIT, number
from kd_evalsuite.vqa import normalise, soft_accuracy

HANDWRITTEN = "Handwritten Mathematical Expression Recognition"


def relaxed(reply: str, item: Item) -> Verdict:
    """Numbers within 5 % of a gold that is not 0, `x%` being x / 100; otherwise equal but for case; spaces count."""
    value = _value(reply)
    right = any(_same(value, _value(gold), reply, gold) for gold in item.gold)
    return Verdict(float(right), reply.strip().lower() or None)


def _same(value: float | None, target: float | None, reply: str, gold: str) -> bool:
    if value is not None and target:
        return abs(value - target) / abs(target) <= 0.05
    return reply.lower() == gold.lower()


def _value(text: str) -> float | None:
    percent = text.endswith("%")
    value = number(text.rstrip("%") if percent else text)
    return value / 100 if value is not None and percent else value


def anls(reply: str, item: Item) -> Verdict:
    """Edit distance of lower-cased texts with single spaces over the length of the *raw* texts: padding raises it.

    Below one half 0; one half is kept; two empty texts are equal.
    """
    from rapidfuzz.distance import Levenshtein

    raw = reply[:LIMIT]
    answer = " ".join(raw.lower().split())
    best = 0.0
    for gold in item.gold:
        length = max(len(raw), len(gold))
        distance = Levenshtein.distance(answer, " ".join(gold.lower().split()))
        best = max(best, 1 - distance / length if length else 1.0)
    return Verdict(best if best >= 0.5 else 0.0, answer or None)


def vqa_accuracy(reply: str, item: Item) -> Verdict:
    """VQA soft accuracy after the reference's normaliser; as there, an empty text equals an answer of articles."""
    answer = normalise(reply)
    return Verdict(soft_accuracy(answer, [normalise(gold) for gold in item.gold]), answer or None)


def ocr_contains(reply: str, item: Item) -> Verdict:
    """OCRBench's own metric: a gold text stands in the reply; an empty gold text stands in any."""
    answer = ocr_plain(reply, item)
    return Verdict(float(any(ocr_plain(gold, item) in answer for gold in item.gold)), answer or None)


def ocr_plain(text: str, item: Item) -> str:
    """Lower case and newlines as spaces; for handwritten formulas case is kept and spaces are removed."""
    one = text[:LIMIT].strip().replace("\n", " ")
    return one.replace(" ", "") if item.category == HANDWRITTEN else one.lower()


def ocr_equal(reply: str, item: Item) -> Verdict:
    """OCRBench by equality, as Cambrian's script has it by default."""
    answer = ocr_plain(reply, item)
    return Verdict(float(any(answer == ocr_plain(gold, item) for gold in item.gold)), answer or None)
