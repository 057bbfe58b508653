"""OCRBench: reading text, from digits on signs to handwritten formulas.

Liu et al., OCRBench: On the Hidden Mystery of OCR in Large Multimodal Models, 2023.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, content_id, distinct, picture_of
from kd_evalsuite.metrics import Judge, Metric, items_mean
from kd_evalsuite.protocols import lmms, shared
from kd_evalsuite.tables import read_rows
from kd_evalsuite.tasks.base import SHORT_ANSWER, Hub, Task, as_it_is, asked

FORMULA_TOKENS = 64


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns dataset, question, question_type, answer (a list), image; or the original JSON's names."""
    rename = {"type": "question_type", "answers": "answer", "dataset_name": "dataset", "image_path": "image"}
    rows = read_rows(folder, required=("question", "question_type", "answer"), rename=rename, pictures=pictures)
    golds = [tuple(map(str, a)) if isinstance(a := row["answer"], list) else (str(a),) for row in rows]
    keys = [content_id(row.get("dataset"), row["question"], *gold) for row, gold in zip(rows, golds, strict=True)]
    items = []
    for key, row, gold in zip(distinct(keys), rows, golds, strict=True):
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=gold,
                pictures=(picture,) if picture else (),
                category=row["question_type"],
            )
        )
    return items


def short_answer(item: Item) -> Prompt:
    """Cambrian: the question and the wish for a short answer."""
    return asked(item.question, SHORT_ANSWER, pictures=item.pictures)


def metrics(exact: Judge, contains: Judge, *, first: str) -> tuple[Metric, ...]:
    """Equality and containment, the main one first."""
    both = {"exact": Metric("exact_accuracy", exact, items_mean), "contains": Metric("accuracy", contains, items_mean)}
    return both.pop(first), *both.values()


TASK = Task(
    key="ocrbench",
    group="OCR & Chart",
    source="echo840/OCRBench test",
    size=1000,
    max_new_tokens=FORMULA_TOKENS,
    read=read,
    prompts={"cambrian": short_answer, "lmms": as_it_is, "vlmevalkit": as_it_is},
    metrics={  # Cambrian's published scorer, which the paper ran, asks for equality; the official one for containment
        "paper": metrics(judges.ocr_exact, judges.ocr_contains, first="exact"),
        "cambrian": metrics(shared.ocr_equal, shared.ocr_contains, first="exact"),
        "lmms": metrics(shared.ocr_equal, lmms.contains, first="contains"),
        "vlmevalkit": metrics(shared.ocr_equal, shared.ocr_contains, first="contains"),
        "official": metrics(shared.ocr_equal, shared.ocr_contains, first="contains"),
    },
    hub=Hub("echo840/OCRBench", ("data/test-*.parquet",)),
)
