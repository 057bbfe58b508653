"""How lmms-eval reads replies.

Source: github.com/EvolvingLMMs-Lab/lmms-eval at 75571cf, `lmms_eval/tasks/*/utils.py` and `_task_utils`; rules
re-written from what they do.
"""

import re
import string
import unicodedata
from collections.abc import Sequence

from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.protocols import mathvista, mmmu
from kd_evalsuite.protocols.shared import HANDWRITTEN
from kd_evalsuite.text import LETTERS, LIMIT

UNREAD = Verdict(0.0, None)
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NOUNS: tuple[str, ...] = (
    "the answer",
    "answer",
    "the correct answer",
    "correct answer",
    "the best answer",
    "best answer",
    "my answer",
)
_NOUNS += ("the correct option", "correct option", "the best option", "best option", "my choice")
_NOUNS += ("the choice", "choice", "the correct choice", "correct choice")
_PHRASES: tuple[str, ...] = (*(f"{noun} is" for noun in _NOUNS), "i choose", "i select", "i pick")
_PHRASES += ("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは")

_FORMS = ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} "))  # rank, how a letter is marked off


def verdict(answer: str | None, item: Item) -> Verdict:
    """Right if the letter is the gold one; None, or a letter that is no option, is unread."""
    known = answer is not None and answer in (LETTERS[: len(item.choices)] or LETTERS)
    return Verdict(float(answer in item.gold), answer) if answer and known else UNREAD


def ranked_letter(reply: str, letters: Sequence[str]) -> str | None:
    """The letter of highest rank, the later one of equal rank; a capital inside any word if there is nothing else.

    Ranks: first in the reply 10, last 9, somewhere behind an answer phrase 7, `(B)` 6, `B.` 5, `B:` 4, `B)` 3, `B ` 2,
    anywhere 0.
    """
    text = reply[:LIMIT].strip()
    for mark in ",.!?;:'\"":
        text = text.strip(mark)
    text = f" {text} "
    bare = text.strip()
    found: list[tuple[int, int, str]] = []
    for letter in letters:
        for rank, form in _FORMS:
            if (at := text.rfind(form.format(letter))) >= 0:
                found.append((rank, at, letter))
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((10, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((9, len(text) - 1, letter))
    found.extend(_behind_phrases(text, letters))
    if not found:
        found = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(found, key=lambda one: one[:2])[2] if found else None


def _behind_phrases(text: str, letters: Sequence[str]) -> list[tuple[int, int, str]]:
    lower = text.lower()
    found: list[tuple[int, int, str]] = []
    for phrase in _PHRASES:
        if (start := lower.find(phrase)) >= 0:
            places = ((text.find(letter, start + len(phrase)), letter) for letter in letters)
            found.extend((7, at, letter) for at, letter in places if at >= 0)
    return found


def _ranked(reply: str, item: Item) -> str | None:
    return ranked_letter(reply, LETTERS[: len(item.choices)] or LETTERS[:8])


def choice(reply: str, item: Item) -> Verdict:
    """A letter by rank; see `ranked_letter`."""
    return verdict(_ranked(reply, item), item)


def prefetched(reply: str, choices: Sequence[str]) -> str | None:
    """MMBench's first look: one lone capital (`A` only in short replies), one marked one, or one option text."""
    words = reply[:LIMIT].split()
    letters = LETTERS[:5]
    lone = [letter for letter in letters if letter in words]
    if len(lone) == 1 and not ("A" in words and len(words) > 3):
        return lone[0]
    for before, behind in _MARKED:
        marked = [letter for letter in letters if f"{before}{letter}{behind}" in words]
        if len(marked) == 1:
            return marked[0]
    lower = reply[:LIMIT].lower()
    named = [LETTERS[k] for k, text in enumerate(choices) if text.lower() in lower]
    return named[0] if len(named) == 1 else None


_MARKED = (
    ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."), (":", ""), (":", ","), (":", "."),
    (":", ")"), (":", ")."),
)  # fmt: skip


def mmbench(reply: str, item: Item) -> Verdict:
    """MMBench without GPT (`mmbench_en_dev_static`): the first look, then the letter by rank."""
    return verdict(prefetched(reply, item.choices) or _ranked(reply, item), item)


def initial(reply: str, item: Item) -> Verdict:
    """SEED-Bench: the first character, in either case."""
    first = reply.strip()[:1].upper()
    return verdict(first if first and first in LETTERS[: len(item.choices)] else None, item)


def science(reply: str, item: Item) -> Verdict:
    """ScienceQA: the capital alone, or a capital and a dot at the start."""
    text = reply.strip()
    marked = text[0] if len(text) >= 2 and text[0].isupper() and text[1] == "." else text
    return verdict(marked if len(marked) == 1 and marked in LETTERS else None, item)


def diagram(reply: str, item: Item) -> Verdict:
    """AI2D: a capital and a dot at the start, else the whole reply but for case and punctuation; spaces count."""
    match = re.match(r"\s*([A-Z])\.", reply[:LIMIT])
    answer = match[1] if match else reply[:LIMIT].translate(_PUNCTUATION).upper()
    return verdict(answer if len(answer) == 1 and answer in LETTERS else None, item)


_BRACKETED = re.compile(r"[(\s]*([A-Z])", re.IGNORECASE | re.ASCII)


def bracketed(reply: str, item: Item) -> Verdict:
    """CV-Bench: the first letter behind brackets and spaces; `Because …` is B."""
    match = _BRACKETED.match(reply[:LIMIT])
    return verdict(match[1].upper() if match else None, item)


_OF_TWO = [
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        r"^\s*\(?([AB])\)?\.?\s*$", r"^\s*\(?([AB])\)?[.\s]", r"answer\s+is\s+\(?([AB])\)?", r"option\s+\(?([AB])\)?",
        r"\(?([AB])\)?(?:\s|$)",
    )
]  # fmt: skip


def of_two(reply: str, item: Item) -> Verdict:
    """MMVP: A or B alone, at the start, behind `answer is` or `option`, at the end of any word, as the first letter.

    lmms-eval also corrects four labels; here that is `--errata`, under every protocol.
    """
    text = reply[:LIMIT].strip()
    for pattern in _OF_TWO:
        if match := pattern.search(text):
            return verdict(match[1].upper(), item)
    first = text[:1].upper()
    return verdict(first if first in ("A", "B") else None, item)


def realworld(reply: str, item: Item) -> Verdict:
    """RealWorldQA: a letter by rank where the gold is one, else equal but for case, outer spaces and final dots."""
    gold = item.gold[0].strip()
    if len(gold) == 1 and gold.upper() in LETTERS[:8]:
        return verdict(ranked_letter(reply, LETTERS[:8]), item)
    answer = reply.lower().strip().rstrip(".")
    return Verdict(float(answer == gold.lower()), answer or None)


def yes_no(reply: str, item: Item) -> Verdict:
    """MME: `yes` or `no`, y or n alone, or one of the two within the first four characters."""
    text = reply.lower().strip().replace(".", "")
    if len(text) == 1:
        answer = {"y": "Yes", "n": "No"}.get(text)
    else:
        answer = "Yes" if "yes" in text[:4] else "No" if "no" in text[:4] else None
    return Verdict(float(answer in item.gold), answer) if answer else UNREAD


def exact(reply: str, item: Item) -> Verdict:
    """GQA: equal but for case and punctuation; spaces count."""
    answer = reply.translate(_PUNCTUATION).lower()
    golds = [gold.translate(_PUNCTUATION).lower() for gold in item.gold]
    return Verdict(float(answer in golds), answer or None)


def mmmu_choice_or_open(reply: str, item: Item) -> Verdict:
    """MMMU: letters as in `mmmu.parse`, without a space in front; every open question is wrong.

    At this commit the open answer is compared character by character (fixed there in August 2026).
    """
    if item.choices:
        return verdict(mmmu.parse(reply, item.choices, alone="{} ", dotted=True), item)
    return Verdict(0.0, reply.strip() or None)


def mathvista_static(reply: str, item: Item) -> Verdict:
    """MathVista: the rules of `mathvista.extract` in place of GPT, then the official comparison on stripped texts."""
    return mathvista.verdict(reply, item, strip=True)


def contains(reply: str, item: Item) -> Verdict:
    """OCRBench: a gold text stands in the reply; full-width Latin is folded, formulas keep case but lose spaces."""
    formula = item.category == HANDWRITTEN
    answer = _plain(reply, formula)
    golds = [_plain(gold, formula) for gold in item.gold]
    return Verdict(float(any(gold in answer for gold in golds)), answer or None)


def _plain(text: str, formula: bool) -> str:
    one = "".join(unicodedata.normalize("NFKC", c) if "\uff01" <= c <= "\uff5e" or c == "\u3000" else c for c in text)
    one = one.strip().replace("\n", " ")
    return one.replace(" ", "") if formula else one.lower()
