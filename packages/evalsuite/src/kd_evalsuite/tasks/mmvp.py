"""MMVP: pairs of images that CLIP cannot tell apart, the same question on both.

Tong et al., Eyes Wide Shut?, CVPR 2024.
"""

import re
from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Picture, Prompt, base_of, picture_of
from kd_evalsuite.metrics import Judge, Metric, clusters_right, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.tables import Row, read_rows
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

FOLDER = "MMVP Images"


def read(folder: Path, pictures: bool) -> list[Item]:
    """`Questions.csv` (Index or lndex, Question, Options, Correct Answer) and `MMVP Images/<index>.jpg`.

    Rows 2k - 1 and 2k are a pair.
    """
    rename = {"lndex": "Index", "\ufefflndex": "Index"}
    rows = read_rows(folder, required=("Index", "Question", "Options", "Correct Answer"), rename=rename)
    items = []
    for row in rows:
        index = int(row["Index"])
        options = re.findall(r"\([a-z]\)\s*(.*?)\s*(?=\([a-z]\)|$)", row["Options"])
        gold = row["Correct Answer"].strip().strip("()").upper()
        if len(options) < 2 or len(gold) != 1:
            raise DataError(f"MMVP {index}: expected options `(a) … (b) …` and an answer `(a)`, got {row}.")
        items.append(
            Item(
                id=str(index),
                question=row["Question"],
                gold=(gold,),
                choices=tuple(options),
                cluster=str((index + 1) // 2),
                pictures=(_picture(row, folder, index),),
                category=str(row.get("Category") or ""),
            )
        )
    return items


def _picture(row: Row, folder: Path, index: int) -> Picture:
    if given := picture_of(row.get("image"), folder):
        return given
    folder = base_of(folder)
    found = sorted((folder / FOLDER).glob(f"{index}.*"))
    return Picture(path=found[0] if found else folder / FOLDER / f"{index}.jpg")


def options_wanted(item: Item) -> Prompt:
    """Cambrian: question, options, and the wish for a letter."""
    return asked(f"{item.question} Options:", lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)


def metrics(judge: Judge) -> tuple[Metric, ...]:
    """The pairs with both right, and the single questions."""
    return Metric("pair_accuracy", judge, clusters_right), Metric("accuracy", judge, items_mean)


TASK = Task(
    key="mmvp",
    group="Vision-Centric",
    source="MMVP/MMVP",
    size=300,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": options_wanted, "lmms": with_letters, "vlmevalkit": select_from},
    metrics={
        "paper": metrics(judges.choice),
        "cambrian": metrics(cambrian.choice_or_text),
        "lmms": metrics(lmms.of_two),
        "vlmevalkit": metrics(vlmevalkit.choice),
    },
    hub=Hub("MMVP/MMVP", ("Questions.csv", "MMVP Images/*"), "37eafecab8a3940c50c2ade5b36de69dbc99a8cf"),
)
