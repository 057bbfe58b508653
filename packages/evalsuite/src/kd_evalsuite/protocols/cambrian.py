"""How Cambrian-1's scripts read replies.

Source: github.com/cambrian-mllm/cambrian at 539ffc3, `eval/eval/*/*_test.py`; rules re-written from what they do.
"""

import string

from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.text import LETTERS, LIMIT, number

UNREAD = Verdict(0.0, None)
_PHRASES = ("answer is", "answer is:", "answer:")  # tried in this order, so `answer is: b` becomes `: b`
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def after_phrase(reply: str) -> str:
    """Lower case, what follows the last answer phrase, stripped."""
    text = reply.lower().strip()
    for phrase in _PHRASES:
        text = text.rpartition(phrase)[2]
    return text.strip()


def first_letter(reply: str, marks: str) -> str:
    """The first character behind the answer phrase and an opening bracket; any character, of any word."""
    return after_phrase(reply).rstrip(marks).lstrip("(").rstrip(")")[:1]


def choice(reply: str, item: Item) -> Verdict:
    """MMBench, MMMU, AI2D, CV-Bench 3D: the first character; `Because …` is B."""
    return _letter(first_letter(reply, ".:,"), item)


def choice_after_dots(reply: str, item: Item) -> Verdict:
    """SEED-Bench, CV-Bench 2D: as `choice`, only dots are taken from the end first."""
    return _letter(first_letter(reply, "."), item)


def _letter(found: str, item: Item) -> Verdict:
    answer = found.upper()
    known = answer and answer in LETTERS[: len(item.choices)]
    return Verdict(float(answer in item.gold), answer) if known else UNREAD


def choice_or_text(reply: str, item: Item) -> Verdict:
    """MMVP: the letter alone, or the whole text of the gold option."""
    text = after_phrase(reply).rstrip(".:,").lstrip("(").rstrip(")")
    options = [choice.lower() for choice in item.choices]
    for k, option in enumerate(options):
        if text in (LETTERS[k].lower(), option):
            return Verdict(float(LETTERS[k] in item.gold or text == _gold_text(options, item)), LETTERS[k])
    return UNREAD


def _gold_text(options: list[str], item: Item) -> str:
    return options[LETTERS.index(item.gold[0])]


def science(reply: str, item: Item) -> Verdict:
    """ScienceQA: the gold option's text but for case and punctuation, or the letter in front of the first dot."""
    text = after_phrase(reply).rstrip(".")
    if not text:
        return UNREAD
    options = [_bare(choice) for choice in item.choices]
    letter = text.split(".")[0].upper()
    if _bare(text) == options[LETTERS.index(item.gold[0])]:
        return Verdict(1.0, item.gold[0])
    if letter and letter in LETTERS[: len(options)]:
        return Verdict(float(letter in item.gold), letter)
    return UNREAD


def _bare(text: str) -> str:
    return text.translate(_PUNCTUATION).lower().strip()


def yes_no(reply: str, item: Item) -> Verdict:
    """MME: `yes` or `no` and nothing else but final dots."""
    answer = reply.lower().rstrip(".").capitalize()
    return Verdict(float(answer in item.gold), answer) if answer in ("Yes", "No") else UNREAD


def exact(reply: str, item: Item) -> Verdict:
    """GQA: equal but for case and final dots; spaces count."""
    answer = reply.lower().rstrip(".")
    return Verdict(float(any(answer == gold.lower() for gold in item.gold)), answer or None)


def first_word(reply: str, item: Item) -> Verdict:
    """RealWorldQA: the first word behind the answer phrase, so an answer of two words is never right.

    The script stops at an empty reply; here that is unread.
    """
    words = after_phrase(reply).rstrip(".").split()
    return Verdict(float(any(words[0] == gold.lower() for gold in item.gold)), words[0]) if words else UNREAD


def mmmu(reply: str, item: Item) -> Verdict:
    """MMMU: the first character where there are options, else equal text or a number that the gold is 5 % from.

    The tolerance is of the reply's number, not of the gold: the script calls its function with the two swapped. Where
    the data list several gold answers, it compares with the list as text, so no reply is right.
    """
    if item.choices:
        return choice(reply, item)
    answer = after_phrase(reply).rstrip(".")
    return _equal_or_near(answer, item) if len(item.gold) == 1 else Verdict(0.0, answer or None)


def mathvista(reply: str, item: Item) -> Verdict:
    """MathVista: the whole reply is the gold letter, the gold answer, or a number that the gold is 5 % from.

    Nothing is extracted: the branch meant for options compares the type with a name that the data do not have.
    """
    return _equal_or_near(reply.lower().strip(), item)


def _equal_or_near(answer: str, item: Item) -> Verdict:
    right = any(answer == gold.lower() or _near(number(gold), number(answer)) for gold in item.gold)
    return Verdict(float(right), answer or None)


def _near(value: float | None, of: float | None) -> bool:
    return value is not None and of is not None and abs(value - of) <= abs(of) * 0.05


def relaxed(reply: str, item: Item) -> Verdict:
    """ChartQA: two numbers within 5 % of the gold, else equal but for case; spaces count, `5%` is no number."""
    answer = reply.lower()
    a = number(answer)
    golds = [gold.lower() for gold in item.gold]
    right = any(_near(a, g) if a is not None and (g := number(gold)) is not None else answer == gold for gold in golds)
    return Verdict(float(right), answer.strip() or None)


def anls(reply: str, item: Item) -> Verdict:
    """DocVQA, which Cambrian only prepares for the official server: the ANLS beside its scripts, on stripped texts.

    Two empty texts, which that function divides by zero on, are equal.
    """
    from rapidfuzz.distance import Levenshtein

    answer = reply[:LIMIT].lower().strip()
    best = max((Levenshtein.normalized_similarity(answer, gold.lower().strip()) for gold in item.gold), default=0.0)
    return Verdict(best if best >= 0.5 else 0.0, answer or None)
