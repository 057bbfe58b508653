"""ScienceQA's evaluation as LLaVA and TinyLLaVA have it.

Source: github.com/TinyLLaVA/TinyLLaVA_Factory at 53f12c7, `eval_science_qa.py`, after LLaVA's; rules re-written.
"""

import re

from kd_evalsuite.items import Item
from kd_evalsuite.metrics import Verdict
from kd_evalsuite.text import LETTERS, LIMIT

UNREAD = Verdict(0.0, None)
_THE_ANSWER_IS = re.compile(r"The answer is ([A-Z]).")


def llava(reply: str, item: Item) -> Verdict:
    """A capital alone; a capital, dot and space at the start; or `The answer is B` once, with something behind it.

    Capitals beyond E, and `B.` alone, are not read.
    """
    text = reply[:LIMIT]
    known = LETTERS[:5]
    if len(text) == 1 and text in known:
        answer = text
    elif len(text) >= 3 and text[0] in known and text[1:3] == ". ":
        answer = text[0]
    else:
        found = _THE_ANSWER_IS.findall(text)
        answer = found[0] if len(found) == 1 else ""
    offered = known[: len(item.choices)]
    return Verdict(float(answer in item.gold), answer) if answer and answer in offered else UNREAD
