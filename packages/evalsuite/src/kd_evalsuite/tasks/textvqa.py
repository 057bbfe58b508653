"""TextVQA, validation: questions on text in photographs, ten human answers each.

Singh et al., Towards VQA Models That Can Read, CVPR 2019.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.tables import read_rows, texts
from kd_evalsuite.tasks.base import SINGLE_WORD, WORD_TOKENS, Task, asked


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns question_id, question, answers (a list), ocr_tokens (a list, may be absent), image, image_id."""
    required = ("question_id", "question", "answers")
    rows = read_rows(folder, split="validation", required=required, pictures=pictures)
    items = []
    for row in rows:
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=str(row["question_id"]),
                question=row["question"],
                gold=texts(row["answers"]),
                cluster=str(row.get("image_id") or ""),
                pictures=(picture,) if picture else (),
                fields={"ocr_tokens": texts(row.get("ocr_tokens") or ())},
            )
        )
    return items


def cambrian(item: Item) -> Prompt:
    """The question, the tokens that an OCR system read in the image, and the wish for a word or phrase."""
    tokens = f"Reference OCR tokens: {', '.join(item.fields['ocr_tokens'])}"
    return asked(item.question, tokens, SINGLE_WORD, pictures=item.pictures)


TASK = Task(
    key="textvqa",
    group="OCR & Chart",
    source="lmms-lab/textvqa validation",
    size=5000,
    max_new_tokens=WORD_TOKENS,
    read=read,
    prompts={"cambrian": cambrian},
    metrics={"paper": (Metric("vqa_accuracy", judges.vqa_accuracy, items_mean),)},
)
