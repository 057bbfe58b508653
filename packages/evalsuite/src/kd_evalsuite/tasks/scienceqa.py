"""ScienceQA, the whole test split: school science, some questions with an image and some without.

Lu et al., Learn to Explain, NeurIPS 2022.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, content_id, distinct, picture_of
from kd_evalsuite.metrics import Judge, Metric, items_mean, mean_where
from kd_evalsuite.protocols import cambrian, lmms, science, vlmevalkit
from kd_evalsuite.tables import Row, present, read_rows, texts
from kd_evalsuite.tasks.base import LETTER_DIRECTLY, LETTER_TOKENS, Hub, Task, asked, lettered, select_from
from kd_evalsuite.text import LETTERS

ONLY_LETTER = "Please answer directly with only the letter of the correct option and nothing else."


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns image (may be null), question, choices, answer (index), hint, subject.

    Also the original `problems.json`, whose ids are kept, with pictures at `images/test/<id>/image.png`.
    """
    rows = read_rows(folder, required=("question", "choices", "answer"), pictures=pictures)
    rows = [row for row in rows if row.get("split", "test") == "test"]
    items = []
    for key, row in zip(distinct([_key(row) for row in rows]), rows, strict=True):
        if not row["choices"]:
            raise DataError(f"ScienceQA {key}: expected choices, found none.")
        original = "split" in row and row.get("image")
        picture = picture_of(f"test/{key}/{row['image']}" if original else row.get("image"), folder)
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=(LETTERS[int(row["answer"])],),
                choices=texts(row["choices"]),
                pictures=(picture,) if picture else (),
                category=str(row.get("subject") or ""),
                fields={"hint": row["hint"] if present(row.get("hint")) else ""},
            )
        )
    return items


def _key(row: Row) -> str:
    return str(row.get("id") or content_id(row["question"], *row["choices"], row.get("hint"), row["answer"]))


def read_with_image(folder: Path, pictures: bool) -> list[Item]:
    """The same, only the questions with an image."""
    return [item for item in read(folder, pictures) if item.pictures]


def only_letter(item: Item) -> Prompt:
    """Cambrian: hint and question on one line, options, and the wish for nothing but a letter."""
    question = " ".join(part for part in (item.fields["hint"], item.question) if part)
    return asked(question, lettered(item.choices), ONLY_LETTER, pictures=item.pictures)


def in_context(item: Item) -> Prompt:
    """lmms-eval: the hint as context, question, options, and the wish for a letter."""
    context = f"Context: {item.fields['hint']}" if item.fields["hint"] else ""
    return asked(context, item.question, lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)


def select(item: Item) -> Prompt:
    """VLMEvalKit: its multiple-choice prompt with the hint."""
    return select_from(item, hint=item.fields["hint"])


def has_picture(item: Item) -> bool:
    """Whether a question comes with an image."""
    return bool(item.pictures)


def metrics(judge: Judge) -> tuple[Metric, ...]:
    """Over all questions, and over those with an image."""
    return Metric("accuracy", judge, items_mean), Metric("image_accuracy", judge, mean_where(has_picture))


PROMPTS = {"cambrian": only_letter, "lmms": in_context, "vlmevalkit": select}
JUDGES = {
    "paper": judges.choice,
    "cambrian": cambrian.science,
    "lmms": lmms.science,
    "vlmevalkit": vlmevalkit.choice,
    "official": science.llava,
}
HUB = Hub("derek-thomas/ScienceQA", ("data/test-*.parquet",))

TASK = Task(
    key="scienceqa",
    group="Knowledge",
    source="derek-thomas/ScienceQA test",
    size=4241,
    max_new_tokens=LETTER_TOKENS,
    read=read,
    prompts=PROMPTS,
    metrics={  # the paper's numbers count the questions without image too; Cambrian tabulates those with one
        protocol: tuple(reversed(metrics(judge))) if protocol == "cambrian" else metrics(judge)
        for protocol, judge in JUDGES.items()
    },
    hub=HUB,
    other_sizes={2017: "its questions with an image"},
    text_only=True,
)

IMAGE_TASK = Task(
    key="scienceqa_img",
    group="Knowledge",
    source="derek-thomas/ScienceQA test, questions with an image",
    size=2017,
    max_new_tokens=LETTER_TOKENS,
    read=read_with_image,
    prompts=PROMPTS,
    metrics={protocol: (Metric("accuracy", judge, items_mean),) for protocol, judge in JUDGES.items()},
    hub=HUB,
    folder="scienceqa",
)
