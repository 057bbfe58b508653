"""How VLMEvalKit reads replies, with `exact_matching`: what its rules cannot read is wrong.

Source: github.com/open-compass/VLMEvalKit at e8e78f0, `vlmeval/utils/matching_util.py` and `vlmeval/dataset/utils`;
rules re-written from what they do.
"""

import re
from collections.abc import Mapping

from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.protocols import shared
from kd_evalsuite.text import LETTERS, LIMIT
from kd_evalsuite.vqa import digits_and_articles, punctuation, soft_accuracy

UNREAD = Verdict(0.0, None)
_APART = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE | re.ASCII)
_PROPER_DOT = re.compile(r"(?<!\d)\.(?!\d)")  # `5.` keeps its dot
_REFUSALS = (
    "Failed to obtain answer via API", "Sorry, I can't help with images of people yet.", "I can't process this file.",
    "I'm sorry, but without the image provided", "Cannot determine the answer",
)  # fmt: skip


def choice(reply: str, item: Item) -> Verdict:
    """Multiple choice: a lone letter near the end, `answer is B`, or the only option text in a short reply."""
    answer = inferred(reply, dict(zip(LETTERS, item.choices, strict=False)))
    return Verdict(float(answer in item.gold), answer) if answer else UNREAD


def inferred(reply: str, choices: Mapping[str, str]) -> str | None:
    """The option that a reply names, or None.

    1. of the option letters exactly one is a word, first among the last four words;
    2. a letter A to D, even the first of a word, stands behind `answer is`;
    3. the reply is at most twice as long as all options together and contains one option's text, in either case.
    """
    text = reply[:LIMIT]
    if any(refusal in text for refusal in _REFUSALS):
        return None
    words = text.translate(_APART).split()
    lone = [letter for letter in choices if letter in words]
    if len(lone) == 1 and words.index(lone[0]) > len(words) - 5:
        return lone[0]
    if not lone and "Z" in words:
        return None
    if (match := _ANSWER_IS.search(text)) and match[1].upper() in choices:
        return match[1].upper()
    if len(reply) > 2 * sum(map(len, choices.values())):
        return None
    lower = text.lower()
    named = [letter for letter, one in choices.items() if one.lower() in lower]
    return named[0] if len(named) == 1 else None


def mmmu(reply: str, item: Item) -> Verdict:
    """MMMU: an open question becomes a choice between its answer and `Other Answers`, which no model was shown."""
    if item.choices:
        return choice(reply, item)
    gold = item.gold[0] if len(item.gold) == 1 else str(list(item.gold))
    answer = inferred(reply, {"A": gold, "B": "Other Answers"})
    right = gold if len(gold) == 1 and gold in LETTERS else "A"
    return Verdict(float(answer == right), answer) if answer else UNREAD


def mathvista(reply: str, item: Item) -> Verdict:
    """MathVista: an option as in `choice`; `int(reply)` or `float(reply)` equal to the gold; nothing else is right."""
    if item.choices:
        return choice(reply, item)
    read = {"integer": int, "float": float}.get(item.fields.get("answer_type", "text"))
    try:
        if read is None or len(reply) > 400:
            return UNREAD
        return Verdict(float(any(read(reply) == read(gold) for gold in item.gold)), reply.strip())
    except ValueError:
        return UNREAD


def yes_no(reply: str, item: Item) -> Verdict:
    """MME: `yes` or `no` as a word anywhere, but not both."""
    words = set(punctuation(reply[:LIMIT].lower(), dots=_PROPER_DOT).split())
    found = [word.capitalize() for word in ("yes", "no") if word in words]
    return Verdict(float(found[0] in item.gold), found[0]) if len(found) == 1 else UNREAD


def exact(reply: str, item: Item) -> Verdict:
    """GQA: equal but for case and outer spaces."""
    answer = reply.strip().lower()
    return Verdict(float(any(answer == gold.strip().lower() for gold in item.gold)), answer or None)


def relaxed(reply: str, item: Item) -> Verdict:
    """ChartQA: as `shared.relaxed`, with the reply stripped first."""
    return shared.relaxed(reply.strip(), item)


def vqa_accuracy(reply: str, item: Item) -> Verdict:
    """TextVQA: as `shared.vqa_accuracy`, but commas stay until the rule about numbers saw them, and `5.` its dot."""
    answer = _plain(reply)
    return Verdict(soft_accuracy(answer, [_plain(gold) for gold in item.gold]), answer or None)


def _plain(text: str) -> str:
    one = text[:LIMIT].replace("\n", " ").replace("\t", " ").strip()
    return digits_and_articles(punctuation(one, dots=_PROPER_DOT))
