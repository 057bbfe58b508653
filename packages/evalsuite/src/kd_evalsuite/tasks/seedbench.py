"""SEED-Bench, the questions on single images.

Li et al., SEED-Bench: Benchmarking Multimodal LLMs with Generative Comprehension, CVPR 2024.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, distinct, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.tables import read_rows
from kd_evalsuite.tasks.base import LETTER_DIRECTLY, LETTER_TOKENS, Task, asked, lettered

OPTIONS = ("choice_a", "choice_b", "choice_c", "choice_d")


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns question_id, question, choice_a … choice_d, answer, question_type_id, data_type, image (list of one)."""
    rows = read_rows(folder, required=("question_id", "question", "answer", *OPTIONS), pictures=pictures)
    rows = [row for row in rows if row.get("data_type", "image") == "image"]
    items = []
    for key, row in zip(distinct([str(row["question_id"]) for row in rows]), rows, strict=True):
        cells = row.get("image")
        cells = cells if isinstance(cells, list) else [cells]
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=(row["answer"].strip().upper(),),
                choices=tuple(str(row[k]) for k in OPTIONS),
                pictures=tuple(p for cell in cells if (p := picture_of(cell, folder))),
                category=str(row.get("question_type_id", "")),
            )
        )
    return items


def cambrian(item: Item) -> Prompt:
    """Question, options, and the wish for a letter."""
    return asked(f"{item.question} Options:", lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)


TASK = Task(
    key="seedbench_image",
    group="General",
    source="lmms-lab/SEED-Bench test, data_type image",
    size=14233,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": cambrian},
    metrics={"paper": (Metric("accuracy", judges.choice, items_mean),)},
)
