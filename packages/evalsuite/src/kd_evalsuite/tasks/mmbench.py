"""MMBench, English: multiple choice, each question also with its options rotated.

Liu et al., MMBench: Is Your Multi-modal Model an All-around Player?, ECCV 2024.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, picture_of
from kd_evalsuite.metrics import Metric, clusters_right, items_mean
from kd_evalsuite.tables import present, read_rows
from kd_evalsuite.tasks.base import LETTER_DIRECTLY, LETTER_TOKENS, Task, asked, lettered

ROTATION = 1_000_000  # a rotated copy of question i has index i + k * ROTATION


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns index, question, hint, A to D, answer, category, image (bytes, or base64 in a tsv)."""
    required = ("index", "question", "A", "B", "answer")
    rows = read_rows(folder, split="dev", required=required, pictures=pictures)
    items = []
    for row in rows:
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=str(row["index"]),
                question=row["question"],
                gold=(row["answer"].strip().upper(),),
                choices=tuple(str(row[k]) for k in "ABCD" if present(row.get(k))),
                cluster=str(int(row["index"]) % ROTATION),
                pictures=(picture,) if picture else (),
                category=str(row.get("category") or ""),
                fields={"hint": row["hint"] if present(row.get("hint")) else ""},
            )
        )
    return items


def cambrian(item: Item) -> Prompt:
    """Hint, question, options, and the wish for a letter."""
    question = f"{item.question} Options:"
    return asked(item.fields["hint"], question, lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)


TASK = Task(
    key="mmbench_en",
    group="General",
    source="lmms-lab/MMBench_EN dev",
    size=4377,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": cambrian},
    metrics={  # the paper's numbers are the accuracy over all rows, not the circular one
        "paper": (
            Metric("accuracy", judges.choice, items_mean),
            Metric("circular_accuracy", judges.choice, clusters_right),
        ),
    },
)
