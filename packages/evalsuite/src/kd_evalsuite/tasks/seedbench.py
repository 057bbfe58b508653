"""SEED-Bench, the questions on single images.

Li et al., SEED-Bench: Benchmarking Multimodal LLMs with Generative Comprehension, CVPR 2024.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, distinct, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.tables import POSITION, Row, read_rows
from kd_evalsuite.tasks.base import (
    LETTER_DIRECTLY,
    LETTER_TOKENS,
    Hub,
    Task,
    asked,
    lettered,
    select_from,
    with_letters,
)

TYPES = {
    "1": "scene understanding", "2": "instance identity", "3": "instance attribute", "4": "instance location",
    "5": "instance counting", "6": "spatial relation", "7": "instance interaction", "8": "visual reasoning",
    "9": "text recognition",
}  # fmt: skip
OPTIONS = ("choice_a", "choice_b", "choice_c", "choice_d")


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns question_id, question, choice_a … choice_d, answer, question_type_id, data_type, image (list of one).

    Also VLMEvalKit's `SEEDBench_IMG.tsv` (index, question, A … D, answer, category, image in base64).
    """
    rename = {"A": "choice_a", "B": "choice_b", "C": "choice_c", "D": "choice_d", "index": "question_id"}
    required = ("question_id", "question", "answer", *OPTIONS)
    rows = read_rows(folder, required=required, rename=rename, pictures=pictures, keep=_is_image)
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
                category=TYPES.get(str(row.get("question_type_id", "")), str(row.get("category") or "")),
                row=row[POSITION],
            )
        )
    return items


def _is_image(row: Row) -> bool:
    return bool(row.get("data_type", "image") == "image")  # the others are videos of eight frames


def options_wanted(item: Item) -> Prompt:
    """Cambrian: question, options, and the wish for a letter."""
    return asked(f"{item.question} Options:", lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)


ACCURACY = {
    "paper": judges.choice,
    "cambrian": cambrian.choice_after_dots,
    "lmms": lmms.initial,
    "vlmevalkit": vlmevalkit.choice,
}

TASK = Task(
    key="seedbench_image",
    group="General",
    source="lmms-lab/SEED-Bench test, data_type image",
    size=14233,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": options_wanted, "lmms": with_letters, "vlmevalkit": select_from},
    metrics={protocol: (Metric("accuracy", judge, items_mean),) for protocol, judge in ACCURACY.items()},
    hub=Hub("lmms-lab/SEED-Bench", ("data/test-*.parquet",)),
)
