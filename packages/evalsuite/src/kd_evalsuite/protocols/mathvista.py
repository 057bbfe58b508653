"""MathVista's comparison of an extracted answer with the gold one, and the rules that extract it here.

The official evaluation lets GPT-4 extract; here rules do (`extract`), or a language model where that is asked for
(`kd_evalsuite.llm_judge`). Officially an empty extraction is the option nearest to nothing, which alone scores 168 of
1000; here it is unread.

Source: Lu et al., MathVista, ICLR 2024; github.com/lupantech/MathVista at 53d5258, `calculate_score.py`.
"""

import re

from kd_evalsuite import metrics, text
from kd_evalsuite.items import Item

UNREAD = metrics.Verdict(0.0, None)
RULES_VERSION = "3"
_BRACKETED = re.compile(r"\(([a-zA-Z])\)")
_LIST = re.compile(r"\[[^\[\]]{1,400}\]")


def verdict(reply: str, item: Item, *, strip: bool = False) -> metrics.Verdict:
    """Extract by rules, then compare as officially; nothing extracted is unread and never an option."""
    found = extract(reply, item)
    return UNREAD if not found else compared(found, item, strip=strip)


def compared(extraction: str, item: Item, *, strip: bool = False) -> metrics.Verdict:
    """An extracted answer, brought to the form of the gold one, and whether they are equal.

    An option: the letter in brackets, or the letter, or else the option of least edit distance (the first of several).
    An integer: cut off. A float: rounded to the item's precision. Anything else: as it is.
    """
    answer = normalised(extraction, item)
    if answer is None:
        return UNREAD
    same = any((answer.strip() == gold.strip()) if strip else answer == gold for gold in golds(item))
    return metrics.Verdict(float(same), answer)


def golds(item: Item) -> tuple[str, ...]:
    """The gold answers as texts: of options their text, not their letter."""
    if not item.choices:
        return item.gold
    return tuple(item.choices[text.LETTERS.index(letter)] for letter in item.gold)


def normalised(extraction: str, item: Item) -> str | None:
    """The official `normalize_extracted_answer`."""
    if item.choices:
        return _option(extraction.strip(), item.choices)
    kind = item.fields.get("answer_type")
    try:
        if kind == "integer":
            return str(int(float(extraction)))
        if kind == "float":
            precision = item.fields.get("precision")
            return str(round(float(extraction), int(precision) if precision is not None else None))
    except (ValueError, OverflowError):
        return None
    return extraction


def _option(extraction: str, choices: tuple[str, ...]) -> str:
    from rapidfuzz.distance import Levenshtein

    if match := _BRACKETED.search(extraction):
        extraction = match[1].upper()
    if len(extraction) == 1 and extraction in text.LETTERS[: len(choices)]:
        return choices[text.LETTERS.index(extraction)]
    cut = extraction[:4000]
    return min(choices, key=lambda choice: Levenshtein.distance(cut, choice))


def extract(reply: str, item: Item) -> str | None:
    """The answer in a reply by rules, version `RULES_VERSION`; None if there is none, never a guess.

    An option: as `text.letter` reads it. A number: behind the last "answer is", else the last in the reply. A list: the
    last in square brackets. Text: the reply itself.
    """
    if item.choices:
        stripped = reply.strip()
        if stripped in item.choices:
            return stripped
        return text.letter(reply, item.choices)
    kind = item.fields.get("answer_type", "text")
    if kind in ("integer", "float"):
        return text.last_number(reply)
    if kind == "list":
        found = _LIST.findall(reply[: text.LIMIT])
        return "[" + ", ".join(part.strip() for part in found[-1][1:-1].split(",")) + "]" if found else None
    return reply[: text.LIMIT].strip() or None
