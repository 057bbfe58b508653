"""MMBench, English: multiple choice, each question also with its options rotated.

Liu et al., MMBench: Is Your Multi-modal Model an All-around Player?, ECCV 2024.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, picture_of
from kd_evalsuite.metrics import Judge, Metric, clusters_right, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.tables import present, read_rows
from kd_evalsuite.tasks.base import LETTER_DIRECTLY, LETTER_TOKENS, Hub, Task, asked, lettered, select_from

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


def options_wanted(item: Item) -> Prompt:
    """Cambrian: hint, question, options, and the wish for a letter."""
    question = f"{item.question} Options:"
    return asked(item.fields["hint"], question, lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)


def several_options(item: Item) -> Prompt:
    """lmms-eval: hint and question on one line, options, an empty line, and the wish for a letter."""
    question = " ".join(part for part in (item.fields["hint"], item.question) if part)
    options = f"{question} There are several options:\n{lettered(item.choices)}"
    return Prompt(f"{options}\n\n{LETTER_DIRECTLY}", item.pictures)


def select(item: Item) -> Prompt:
    """VLMEvalKit: its multiple-choice prompt with the hint."""
    return select_from(item, hint=item.fields["hint"])


def rows(judge: Judge) -> tuple[Metric, ...]:
    """Over all rows first, then the groups with every rotation right."""
    return Metric("accuracy", judge, items_mean), Metric("circular_accuracy", judge, clusters_right)


def circular(judge: Judge) -> tuple[Metric, ...]:
    """The groups with every rotation right first."""
    return tuple(reversed(rows(judge)))


TASK = Task(
    key="mmbench_en",
    group="General",
    source="lmms-lab/MMBench_EN dev",
    size=4377,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts={"cambrian": options_wanted, "lmms": several_options, "vlmevalkit": select},
    metrics={  # the paper's numbers are the accuracy over all rows, not the circular one
        "paper": rows(judges.choice),
        "cambrian": circular(cambrian.choice),
        "lmms": circular(lmms.mmbench),
        "vlmevalkit": circular(vlmevalkit.choice),
        "official": circular(vlmevalkit.choice),
    },
    hub=Hub("lmms-lab/MMBench_EN", ("data/dev-*.parquet",)),
    other_sizes={4329: "lmms-lab/MMBench en dev", 1164: "its rows without rotations"},
)
