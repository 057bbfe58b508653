"""AI2D: multiple choice on school diagrams.

Kembhavi et al., A Diagram Is Worth a Dozen Images, ECCV 2016.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, content_id, distinct, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.tables import read_rows, texts
from kd_evalsuite.tasks.base import LETTER_DIRECTLY, LETTER_TOKENS, Task, asked, lettered
from kd_evalsuite.text import LETTERS


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns question, options, answer (an index, as text), image."""
    rows = read_rows(folder, required=("question", "options", "answer"), pictures=pictures)
    keys = [content_id(row["question"], *row["options"], row["answer"]) for row in rows]
    items = []
    for key, row in zip(distinct(keys), rows, strict=True):
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=(LETTERS[int(row["answer"])],),
                choices=texts(row["options"]),
                pictures=(picture,) if picture else (),
            )
        )
    return items


def cambrian(item: Item) -> Prompt:
    """Question, options, and the wish for a letter."""
    return asked(item.question, lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)


TASK = Task(
    key="ai2d",
    group="Knowledge",
    source="lmms-lab/ai2d test",
    size=3088,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": cambrian},
    metrics={"paper": (Metric("accuracy", judges.choice, items_mean),)},
)
