"""DocVQA, validation: questions on scanned documents. The test split has no public answers.

Mathew et al., DocVQA, WACV 2021.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.protocols import cambrian, shared
from kd_evalsuite.tables import read_rows, texts
from kd_evalsuite.tasks.base import SHORT_ANSWER, WORD_TOKENS, Hub, Task, asked, in_a_word


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns questionId, question, answers (a list), image, docId."""
    required = ("questionId", "question", "answers")
    rows = read_rows(folder, split="validation", required=required, pictures=pictures)
    items = []
    for row in rows:
        if not row["answers"]:
            raise DataError(f"DocVQA {row['questionId']}: expected answers, found none; take the validation split.")
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=str(row["questionId"]),
                question=row["question"],
                gold=texts(row["answers"]),
                pictures=(picture,) if picture else (),
            )
        )
    return items


def short_answer(item: Item) -> Prompt:
    """Cambrian: the question and the wish for a short answer."""
    return asked(item.question, SHORT_ANSWER, pictures=item.pictures)


ANLS = {
    "paper": judges.anls,
    "cambrian": cambrian.anls,
    "lmms": shared.anls,
    "vlmevalkit": shared.anls,
    "official": shared.anls,
}

TASK = Task(
    key="docvqa",
    group="OCR & Chart",
    source="lmms-lab/DocVQA DocVQA validation",
    size=5349,
    max_new_tokens=WORD_TOKENS,
    read=read,
    prompts={"cambrian": short_answer, "lmms": in_a_word, "vlmevalkit": in_a_word},
    metrics={protocol: (Metric("anls", judge, items_mean),) for protocol, judge in ANLS.items()},
    hub=Hub("lmms-lab/DocVQA", ("DocVQA/validation-*.parquet",)),
)
