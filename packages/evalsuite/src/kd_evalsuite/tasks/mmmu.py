"""MMMU, validation: college-level questions, most of them multiple choice, some with several images.

Yue et al., MMMU, CVPR 2024.
"""

import ast
import re
from pathlib import Path
from typing import Any

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, picture_of
from kd_evalsuite.metrics import Metric, Verdict, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.protocols import mmmu as official
from kd_evalsuite.tables import read_rows, texts
from kd_evalsuite.tasks.base import LETTER_DIRECTLY, SINGLE_WORD, WORD_TOKENS, Hub, Task, asked, lettered, select_from

IMAGES = tuple(f"image_{k}" for k in range(1, 8))


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns id, question, options (a list, or a list written as text), answer, question_type, image_1 … image_7."""
    rows = read_rows(folder, split="validation", required=("id", "question", "options", "answer"), pictures=pictures)
    items = []
    for row in rows:
        options = texts(_listed(row["options"], row["id"]))
        answer = str(row["answer"])
        open_ended = row.get("question_type", "multiple-choice") == "open" or not options
        gold = texts(_listed(answer, row["id"])) if open_ended and answer.startswith("[") else (answer,)
        cells = [row.get(name) for name in IMAGES]
        items.append(
            Item(
                id=str(row["id"]),
                question=row["question"],
                gold=gold,
                choices=() if open_ended else options,
                pictures=tuple(p for cell in cells if (p := picture_of(cell, folder))),
                category=re.sub(r"^[a-z]+_|_\d+$", "", str(row["id"])),
            )
        )
    return items


def _listed(value: Any, key: str) -> list[Any]:
    """A list, or the list that a text spells. Cambrian's pattern for it yields other options for 97 of 847 items."""
    if not isinstance(value, str):
        return list(value)
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        raise DataError(f"MMMU {key}: expected a list, got {value[:80]!r}.") from None
    return list(found)


def first_picture(item: Item) -> Prompt:
    """Cambrian: the question without its image marks, and the first image only."""
    question = re.sub(r"<image \d+>", "", item.question)
    first = item.pictures[:1]
    if item.choices:
        return asked(f"{question} Options:", lettered(item.choices), LETTER_DIRECTLY, pictures=first)
    return asked(question, SINGLE_WORD, pictures=first)


def all_pictures(item: Item) -> Prompt:
    """lmms-eval: the question with its image marks, options, an empty line, and the wish; all images."""
    options = f"\n{lettered(item.choices)}" if item.choices else ""
    wish = LETTER_DIRECTLY if item.choices else SINGLE_WORD
    return Prompt(f"{item.question}{options}\n\n{wish}", item.pictures)


def judge(reply: str, item: Item) -> Verdict:
    """A letter where there are options, else equal text or a number within 5 %."""
    return judges.choice(reply, item) if item.choices else judges.exact_or_close(reply, item)


ACCURACY = {
    "paper": judge,
    "cambrian": cambrian.mmmu,
    "lmms": lmms.mmmu_choice_or_open,
    "vlmevalkit": vlmevalkit.mmmu,
    "official": official.choice_or_open,
}

TASK = Task(
    key="mmmu",
    group="Knowledge",
    source="lmms-lab/MMMU validation",
    size=900,
    max_new_tokens=WORD_TOKENS,
    read=read,
    prompts={"cambrian": first_picture, "lmms": all_pictures, "vlmevalkit": select_from},
    metrics={protocol: (Metric("accuracy", one, items_mean),) for protocol, one in ACCURACY.items()},
    hub=Hub("lmms-lab/MMMU", ("data/validation-*.parquet",), "364f2e2eb107b36e07ff4c5a15f5947a759cef47"),
)
