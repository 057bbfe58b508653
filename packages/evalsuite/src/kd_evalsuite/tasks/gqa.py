"""GQA, testdev balanced: compositional questions on real scenes, open answers of a word or two.

Hudson and Manning, GQA, CVPR 2019.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Picture, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.tables import data_files, read_rows
from kd_evalsuite.tasks.base import WORD_TOKENS, Hub, Task, in_a_word


def read(folder: Path, pictures: bool) -> list[Item]:
    """Two tables, as on the Hub: `*instructions*/` (id, imageId, question, answer) and `*images*/` (id, image).

    Also one table with an `image` column, or the original `testdev_balanced_questions.json` beside a folder `images`.
    """
    split_up = any("instructions" in f.parent.name for f in data_files(folder)) if folder.is_dir() else False
    below = "instructions" if split_up else ""
    required = ("id", "imageId", "question", "answer")
    rows = read_rows(folder, split="testdev", required=required, pictures=pictures, below=below)
    images = _images(folder) if split_up and pictures else {}
    items = []
    for row in rows:
        name = str(row["imageId"])
        shown = row.get("image") or (f"images/{name}.jpg" if pictures else None)
        picture = images.get(name) or picture_of(shown, folder) or Picture()
        items.append(
            Item(
                id=str(row["id"]),
                question=row["question"],
                gold=(str(row["answer"]),),
                cluster=name,
                pictures=(picture,),
                category=_category(row.get("types")),
            )
        )
    return items


def _images(folder: Path) -> dict[str, Picture]:
    rows = read_rows(folder, split="testdev", required=("id", "image"), below="images")
    return {str(row["id"]): picture for row in rows if (picture := picture_of(row["image"], folder))}


def _category(types: object) -> str:
    return str(types.get("semantic") or "") if isinstance(types, dict) else ""


ACCURACY = {
    "paper": judges.exact,
    "cambrian": cambrian.exact,
    "lmms": lmms.exact,
    "vlmevalkit": vlmevalkit.exact,
}

TASK = Task(
    key="gqa",
    group="General",
    source="lmms-lab/GQA testdev_balanced",
    size=12578,
    max_new_tokens=WORD_TOKENS,
    read=read,
    prompts={"cambrian": in_a_word, "lmms": in_a_word, "vlmevalkit": in_a_word},
    metrics={protocol: (Metric("accuracy", judge, items_mean),) for protocol, judge in ACCURACY.items()},
    hub=Hub("lmms-lab/GQA", ("testdev_balanced_instructions/*.parquet", "testdev_balanced_images/*.parquet")),
)
