"""MathVista, testmini: mathematics in pictures; options, integers, floats and lists.

Lu et al., MathVista, ICLR 2024.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.tables import read_rows, texts
from kd_evalsuite.tasks.base import SINGLE_WORD, Task, asked
from kd_evalsuite.text import LETTERS

REASON = "First show your reasoning process and then give the final answer."
REASONING_TOKENS = 128


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns pid, query, choices (or null), answer (an option's text), answer_type, precision, image."""
    required = ("pid", "query", "choices", "answer", "answer_type")
    rows = read_rows(folder, split="testmini", required=required, pictures=pictures)
    items = []
    for row in rows:
        choices = texts(row["choices"] or ())
        answer = str(row["answer"])
        if choices and answer not in choices:
            raise DataError(f"MathVista {row['pid']}: expected the answer among {choices}, got {answer!r}.")
        cell = row["decoded_image"] if row.get("decoded_image") is not None else row.get("image")
        picture = picture_of(cell, folder)
        items.append(
            Item(
                id=str(row["pid"]),
                question=row["query"],
                gold=tuple(LETTERS[i] for i, c in enumerate(choices) if c == answer) if choices else (answer,),
                choices=choices,
                pictures=(picture,) if picture else (),
                category=str((row.get("metadata") or {}).get("task") or ""),
                fields={"answer_type": row["answer_type"], "precision": row.get("precision")},
            )
        )
    return items


def cambrian(item: Item) -> Prompt:
    """The dataset's own query (hint, question, options) and one more instruction."""
    return asked(item.question, REASON if item.choices else SINGLE_WORD, pictures=item.pictures)


TASK = Task(
    key="mathvista",
    group="Knowledge",
    source="AI4Math/MathVista testmini",
    size=1000,
    max_new_tokens=REASONING_TOKENS,
    read=read,
    prompts={"cambrian": cambrian},
    metrics={"paper": (Metric("accuracy", judges.typed, items_mean),)},
)
