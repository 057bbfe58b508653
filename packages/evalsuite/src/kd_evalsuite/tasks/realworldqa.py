"""RealWorldQA: photographs, many from cars; letters, words and numbers as answers.

xAI, 2024.
"""

import re
from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, content_id, distinct, picture_of
from kd_evalsuite.metrics import Metric, Verdict, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.tables import read_rows
from kd_evalsuite.tasks.base import WORD_TOKENS, Hub, Task, as_it_is, asked

_OPTION = re.compile(r"^\(?([A-Z])[.)]\s*(.+?)\s*$", re.MULTILINE)


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns image, question (ends with its own instruction, may list options), answer (letter, word or number)."""
    rows = read_rows(folder, required=("question", "answer"), pictures=pictures)
    if {"A", "B"} <= rows[0].keys():
        raise DataError(
            f"{folder}: expected options within the questions, got columns A, B: VLMEvalKit's table, whose options "
            "would not be shown. Use the public files (evalsuite fetch realworldqa)."
        )
    keys = [content_id(row["question"], row["answer"]) for row in rows]
    items = []
    for key, row in zip(distinct(keys), rows, strict=True):
        picture = picture_of(row.get("image"), folder)
        gold = str(row["answer"]).strip()
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=(gold,),
                choices=_choices(row["question"], gold),
                pictures=(picture,) if picture else (),
            )
        )
    return items


def _choices(question: str, gold: str) -> tuple[str, ...]:
    """The options listed in the question, where the gold is a letter; yes and no, where it is one of these."""
    if re.fullmatch("[A-H]", gold):
        options = tuple(text for _, text in _OPTION.findall(question))
        return options if "ABCDEFGH".index(gold) < len(options) else ()
    return ("Yes", "No") if gold.lower() in ("yes", "no") else ()


def select(item: Item) -> Prompt:
    """VLMEvalKit: its multiple-choice prompt; options that stand in the question are not listed twice."""
    return asked(f"Question: {item.question}", pictures=item.pictures)


def judge(reply: str, item: Item) -> Verdict:
    """A letter where the gold is one, else equal text."""
    return judges.choice(reply, item) if re.fullmatch("[A-H]", item.gold[0]) else judges.exact(reply, item)


def choice_or_equal(reply: str, item: Item) -> Verdict:
    """VLMEvalKit: multiple choice where the gold is a letter, else equal text."""
    lettered = re.fullmatch("[A-H]", item.gold[0]) is not None and item.choices
    return vlmevalkit.choice(reply, item) if lettered else vlmevalkit.exact(reply, item)


ACCURACY = {"paper": judge, "cambrian": cambrian.first_word, "lmms": lmms.realworld, "vlmevalkit": choice_or_equal}

TASK = Task(
    key="realworldqa",
    group="Vision-Centric",
    source="lmms-lab/RealWorldQA test",
    size=765,
    max_new_tokens=WORD_TOKENS,
    read=read,
    prompts={"cambrian": as_it_is, "lmms": as_it_is, "vlmevalkit": select},
    metrics={protocol: (Metric("accuracy", one, items_mean),) for protocol, one in ACCURACY.items()},
    hub=Hub("lmms-lab/RealWorldQA", ("data/test-*.parquet",)),
)
