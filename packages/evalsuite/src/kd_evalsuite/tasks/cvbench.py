"""CV-Bench, 2D (counting, relations) and 3D (depth, distance): multiple choice.

Tong et al., Cambrian-1, NeurIPS 2024.
"""

from functools import partial
from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, picture_of
from kd_evalsuite.metrics import Judge, Metric, category_mean, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.tables import read_rows, texts
from kd_evalsuite.tasks.base import LETTER_DIRECTLY, LETTER_TOKENS, Hub, Task, as_it_is, asked
from kd_evalsuite.text import LETTERS


def read(part: str, folder: Path, pictures: bool) -> list[Item]:
    """Columns idx, type (2D or 3D), task, image, question, choices, answer `(A)`, prompt, source."""
    required = ("idx", "type", "choices", "answer", "prompt")
    rows = [row for row in read_rows(folder, required=required, pictures=pictures) if row["type"] == part]
    if not rows:
        raise DataError(f"{folder}: expected rows of type {part!r}, found none.")
    items = []
    for row in rows:
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=str(row["idx"]),
                question=row["prompt"],
                gold=(row["answer"].strip().strip("()").upper(),),
                choices=texts(row["choices"]),
                pictures=(picture,) if picture else (),
                category=str(row.get("source") or ""),
            )
        )
    return items


def letter_wanted(item: Item) -> Prompt:
    """Cambrian: the dataset's own prompt, which lists the options, and the wish for a letter."""
    return asked(item.question, LETTER_DIRECTLY, pictures=item.pictures)


def note_first(item: Item) -> Prompt:
    """lmms-eval: which letters there are, an empty line, and the dataset's own prompt."""
    letters = ", ".join(LETTERS[: len(item.choices)])
    note = f"Note: You only need to respond with {letters} without providing any additional information."
    return Prompt(f"{note}\n\n{item.question}", item.pictures)


def _task(part: str, size: int) -> Task:
    def micro(judge: Judge) -> tuple[Metric, ...]:
        return Metric("accuracy", judge, items_mean), Metric("accuracy_by_source", judge, category_mean)

    def macro(judge: Judge) -> tuple[Metric, ...]:
        return tuple(reversed(micro(judge)))  # the official number: every source weighs the same

    return Task(
        key=f"cvbench_{part.lower()}",
        group="Vision-Centric",
        source=f"nyu-visionx/CV-Bench {part} test",
        size=size,
        max_new_tokens=LETTER_TOKENS,
        read=partial(read, part),
        prompts={"cambrian": letter_wanted, "lmms": note_first, "vlmevalkit": as_it_is},
        metrics={  # the paper's numbers are accuracies over all items
            "paper": micro(judges.choice),
            "cambrian": macro(cambrian.choice_after_dots if part == "2D" else cambrian.choice),
            "lmms": micro(lmms.bracketed),
            "vlmevalkit": macro(vlmevalkit.choice),
            "official": macro(judges.choice),
        },
        hub=Hub("nyu-visionx/CV-Bench", (f"test_{part.lower()}.parquet",)),
    )


TASK_2D, TASK_3D = _task("2D", 1438), _task("3D", 1200)
