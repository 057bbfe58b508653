"""MMMU's own evaluation, which lmms-eval varies.

Source: github.com/MMMU-Benchmark/MMMU at bb0b95a, `eval_utils.py`; rules re-written from what they do.
"""

import re
from collections.abc import Sequence

from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.text import LETTERS, LIMIT

UNREAD = Verdict(0.0, None)
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = {":", ",", ".", "!", "?", ";", "'"}
_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+")  # looking back keeps it linear and finds the same
_SIMPLE = re.compile(r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d)(?![,\d])")


def choice_or_open(reply: str, item: Item) -> Verdict:
    """A letter where there are options, else any number or text of the reply that is a gold answer.

    Where nothing is found the script draws a letter at random; here that is unread.
    """
    if item.choices:
        answer = parse(reply, item.choices)
        return Verdict(float(answer in item.gold), answer) if answer else UNREAD
    return open_answer(reply, item)


def parse(reply: str, choices: Sequence[str], alone: str = " {} ", *, dotted: bool = False) -> str | None:
    """The letter in a reply: `(B)`, else ` B `, else (in more than five words) an option's text; of several the last.

    Args:
        reply: Any text.
        choices: The option texts.
        alone: How a letter without brackets stands.
        dotted: Whether `B.` counts too, where nothing stands alone.
    """
    text = reply[:LIMIT]
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    letters = LETTERS[: len(choices)]
    forms = ["({})", alone, *(["{}."] if dotted else [])]
    for form in forms:
        if found := [letter for letter in letters if form.format(letter) in text]:
            place = form if form == "({})" else " {} "
            return max((text.rfind(place.format(one)), -k, one) for k, one in enumerate(found))[2]
    if len(text.split()) > 5:
        lower = text.lower()
        places = [
            (lower.rfind(one.lower()), -k, letter) for k, (letter, one) in enumerate(zip(letters, choices, strict=True))
        ]
        last = max(places)
        return last[2] if last[0] >= 0 else None
    return None


def open_answer(reply: str, item: Item) -> Verdict:
    """An open question: a number of the reply equals one of the gold's to two digits, or a gold text stands in it."""
    said = candidates(reply)
    golds = [one for gold in item.gold for one in normalise(gold)]
    numbers = [one for one in golds if isinstance(one, float)]
    words = [one for one in golds if isinstance(one, str)]
    right = any(one in numbers if isinstance(one, float) else any(w in one for w in words) for one in said)
    return Verdict(float(right), reply[:LIMIT].strip().lower() or None)


def candidates(reply: str) -> list[float | str]:
    """What a reply may mean: the tails of its sentences behind a telling word, and every number in them."""
    text = reply[:LIMIT].strip().strip(".").lower()
    sentences = text.split("\n")  # the script also splits in front of capitals, of which lower case has none
    tails = []
    for k, sentence in enumerate(sentences):
        signs = (*_INDICATORS, "=") if k == len(sentences) - 1 else _INDICATORS
        ends = [sentence.rpartition(sign)[2].strip() for sign in signs if sign in sentence]
        shortest = _shortest(ends)
        if shortest and shortest not in _TRIVIAL:
            tails.append(shortest)
    tails = tails or [text]
    numbers = [n for tail in tails for pattern in (_WITH_COMMAS, _SCIENTIFIC, _SIMPLE) for n in pattern.findall(tail)]
    return [one for part in (*tails, *numbers) for one in normalise(part)]


def _shortest(ends: list[str]) -> str:
    """The first of the shortest, an empty one giving way to whatever follows it."""
    kept = ""
    for end in ends:
        if not kept or len(end) < len(kept):
            kept = end
    return kept


def normalise(text: str) -> list[float | str]:
    """A number to two digits; or the text in lower case, a single character with a space on either side."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except (ValueError, OverflowError):
        lower = text.lower()
        return [f" {lower}", f"{lower} "] if len(lower) == 1 else [lower]
