"""AI2D: multiple choice on school diagrams.

Kembhavi et al., A Diagram Is Worth a Dozen Images, ECCV 2016.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, content_id, distinct, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.tables import read_rows, texts
from kd_evalsuite.tasks.base import LETTER_TOKENS, Hub, Task, select_from, with_letters
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


ACCURACY = {
    "paper": judges.choice,
    "cambrian": cambrian.choice,
    "lmms": lmms.diagram,
    "vlmevalkit": vlmevalkit.choice,
}

TASK = Task(
    key="ai2d",
    group="Knowledge",
    source="lmms-lab/ai2d test",
    size=3088,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": with_letters, "lmms": with_letters, "vlmevalkit": select_from},
    metrics={protocol: (Metric("accuracy", judge, items_mean),) for protocol, judge in ACCURACY.items()},
    hub=Hub("lmms-lab/ai2d", ("data/test-*.parquet",)),
)
