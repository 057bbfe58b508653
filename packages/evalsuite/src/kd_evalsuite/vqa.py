"""VQA soft accuracy and the answer normaliser of the VQA challenge, as TextVQA's evaluation applies them.

The order matters: commas and question marks go first, so the rule about commas inside numbers never applies.

Source: Antol et al., VQA, ICCV 2015; github.com/GT-Vision-Lab/VQA, `vqaEval.py`; github.com/facebookresearch/mmf,
`EvalAIAnswerProcessor`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DOT = re.compile(r"\.(?!\d)")
_DOTS = 32  # the reference passes a flag where the number of replacements stands, so only so many dots go
_DIGIT_COMMA = re.compile(r"\d,\d")
_ARTICLES = {"a", "an", "the"}
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {  # with any one apostrophe missing
    full[:i] + full[i + 1 :]: full for full in _CONTRACTED.split() for i, letter in enumerate(full) if letter == "'"
}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # the one entry of the reference that stands the other way round


@lru_cache(maxsize=200_000)
def normalise(answer: str) -> str:
    """The answer as it is compared: lower case, punctuation, articles and number words dealt with."""
    text = answer[:20_000].lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    return digits_and_articles(text)


def punctuation(text: str, dots: re.Pattern[str] = _DOT) -> str:
    """A mark becomes nothing, if it stands beside a space somewhere or a comma in a number; otherwise a space."""
    out, number = text, _DIGIT_COMMA.search(text) is not None
    for mark in _PUNCTUATION:
        if mark in out:
            beside = number or f"{mark} " in text or f" {mark}" in text
            out = out.replace(mark, "" if beside else " ")
    return dots.sub("", out, count=_DOTS)


def digits_and_articles(text: str) -> str:
    """Lower case, number words as digits, articles dropped, apostrophes put into contractions."""
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def soft_accuracy(answer: str, golds: Sequence[str]) -> float:
    """The mean over the annotators of min(1, matches among the others / 3).

    With ten annotators 0, 0.3, 0.6, 0.9 and 1 for 0, 1, 2, 3 and more matches; with none 0.
    """
    n = len(golds)
    matches = sum(answer == gold for gold in golds)
    if not matches:
        return 0.0
    others = (matches - 1) * matches if matches <= 3 else 3 * matches
    return (others / 3 + (n - matches) * min(1.0, matches / 3)) / n
