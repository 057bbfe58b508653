"""ScienceQA, the whole test split: school science, some questions with an image and some without.

Lu et al., Learn to Explain, NeurIPS 2022.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, content_id, distinct, picture_of
from kd_evalsuite.metrics import Metric, items_mean, mean_where
from kd_evalsuite.tables import present, read_rows, texts
from kd_evalsuite.tasks.base import LETTER_TOKENS, Task, asked, lettered
from kd_evalsuite.text import LETTERS

ONLY_LETTER = "Please answer directly with only the letter of the correct option and nothing else."


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns image (may be null), question, choices, answer (index), hint, subject."""
    rows = read_rows(folder, required=("question", "choices", "answer"), pictures=pictures)
    keys = [content_id(row["question"], *row["choices"], row.get("hint"), row["answer"]) for row in rows]
    items = []
    for key, row in zip(distinct(keys), rows, strict=True):
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=(LETTERS[int(row["answer"])],),
                choices=texts(row["choices"]),
                pictures=(picture,) if picture else (),
                category=str(row.get("subject") or ""),
                fields={"hint": row["hint"] if present(row.get("hint")) else ""},
            )
        )
    return items


def cambrian(item: Item) -> Prompt:
    """Hint and question on one line, options, and the wish for nothing but a letter."""
    question = " ".join(part for part in (item.fields["hint"], item.question) if part)
    return asked(question, lettered(item.choices), ONLY_LETTER, pictures=item.pictures)


METRICS = (Metric("accuracy", judges.choice, items_mean),)
WITH_IMAGE = Metric("image_accuracy", judges.choice, mean_where(lambda item: bool(item.pictures)))

TASK = Task(
    key="scienceqa",
    group="Knowledge",
    source="derek-thomas/ScienceQA test",
    size=4241,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": cambrian},
    metrics={"paper": (*METRICS, WITH_IMAGE)},  # the paper's numbers count the questions without image too
)
