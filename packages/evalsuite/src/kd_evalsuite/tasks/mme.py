"""MME, perception part: yes-no questions in pairs, two on each image.

Fu et al., MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models, 2023.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, content_id, distinct, picture_of
from kd_evalsuite.metrics import Metric, items_mean, mme_total
from kd_evalsuite.tables import read_rows
from kd_evalsuite.tasks.base import LETTER_TOKENS, SINGLE_WORD, Task, asked

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns question_id, image, question, answer, category; rows of the four cognition categories are left out."""
    rows = read_rows(folder, required=("question_id", "question", "answer", "category"), pictures=pictures)
    rows = [row for row in rows if row["category"] in PERCEPTION]
    if not rows:
        raise DataError(f"{folder}: expected rows of the categories {', '.join(PERCEPTION)}, found none.")
    items = []
    keys = [f"{row['question_id']}#{content_id(row['question'])[:6]}" for row in rows]
    for key, row in zip(distinct(keys), rows, strict=True):
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=(str(row["answer"]).strip().capitalize(),),
                choices=("Yes", "No"),
                cluster=f"{row['category']}/{row['question_id']}",
                pictures=(picture,) if picture else (),
                category=row["category"],
            )
        )
    return items


def cambrian(item: Item) -> Prompt:
    """The question, which itself ends with an instruction, and a second one."""
    return asked(item.question, SINGLE_WORD, pictures=item.pictures)


TASK = Task(
    key="mme_perception",
    group="General",
    source="lmms-lab/MME test",
    size=2114,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": cambrian},
    metrics={
        "paper": (Metric("score", judges.yes_no, mme_total), Metric("accuracy", judges.yes_no, items_mean)),
    },
)
