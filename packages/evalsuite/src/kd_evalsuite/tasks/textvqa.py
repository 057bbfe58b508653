"""TextVQA, validation: questions on text in photographs, ten human answers each.

Singh et al., Towards VQA Models That Can Read, CVPR 2019.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.protocols import shared, vlmevalkit
from kd_evalsuite.tables import read_rows, texts
from kd_evalsuite.tasks.base import SINGLE_WORD, WORD_TOKENS, Hub, Task, asked, in_a_word


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


def with_tokens(item: Item) -> Prompt:
    """Cambrian: the question, the tokens that an OCR system read in the image, and the wish for a word or phrase."""
    tokens = f"Reference OCR tokens: {', '.join(item.fields['ocr_tokens'])}"
    return asked(item.question, tokens, SINGLE_WORD, pictures=item.pictures)


def capitalised(item: Item) -> Prompt:
    """lmms-eval: the question with a capital first letter and *everything else lower case*, no tokens."""
    return asked(item.question.capitalize(), SINGLE_WORD, pictures=item.pictures)


METRICS = {
    "paper": (Metric("vqa_accuracy", judges.vqa_accuracy, items_mean),),
    "cambrian": (Metric("vqa_accuracy", shared.vqa_accuracy, items_mean),),
    "lmms": (Metric("vqa_accuracy", shared.vqa_accuracy, items_mean),),
    "vlmevalkit": (Metric("vqa_accuracy", vlmevalkit.vqa_accuracy, items_mean),),
    "official": (Metric("vqa_accuracy", shared.vqa_accuracy, items_mean),),
}
HUB = Hub("lmms-lab/textvqa", ("data/validation-*.parquet",))

TASK = Task(
    key="textvqa",
    group="OCR & Chart",
    source="lmms-lab/textvqa validation",
    size=5000,
    max_new_tokens=WORD_TOKENS,
    read=read,
    prompts={"cambrian": with_tokens, "lmms": capitalised, "vlmevalkit": in_a_word},
    metrics=METRICS,
    hub=HUB,
    scorer="2",
)

PLAIN_TASK = Task(
    key="textvqa_no_ocr",
    group="OCR & Chart",
    source="lmms-lab/textvqa validation, without OCR tokens in the prompt",
    size=5000,
    max_new_tokens=WORD_TOKENS,
    read=read,
    prompts={"cambrian": in_a_word, "lmms": capitalised, "vlmevalkit": in_a_word},
    metrics=METRICS,
    hub=HUB,
    folder="textvqa",
    scorer="2",
)
