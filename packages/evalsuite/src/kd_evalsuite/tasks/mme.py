"""MME, perception and cognition: yes-no questions in pairs, two on each image.

Fu et al., MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models, 2023.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, content_id, distinct, picture_of
from kd_evalsuite.metrics import Judge, Metric, Verdict, items_mean, mme_total
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.tables import POSITION, Row, data_files, read_rows, utf8
from kd_evalsuite.tasks.base import LETTER_TOKENS, SINGLE_WORD, Hub, Task, as_it_is, asked

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
INSTRUCTION = " Please answer yes or no."


def read(part: Sequence[str], folder: Path, pictures: bool) -> list[Item]:
    """Columns question_id, image, question, answer, category; rows of other categories than `part` are left out.

    Also the original `<category>.txt`, lines of image, question, answer and perhaps a reply, and one text file an image
    (lines of question and answer) in a folder for each category.
    """
    found = {file.suffix for file in data_files(folder)} if folder.exists() else set()
    if ".txt" in found and not found & {".parquet", ".jsonl", ".json", ".tsv", ".csv"}:
        rows = _text_rows(folder)
    else:
        rows = read_rows(folder, required=("question_id", "question", "answer", "category"), pictures=pictures)
    rows = [row for row in rows if row["category"] in part]
    if not rows:
        raise DataError(f"{folder}: expected rows of the categories {', '.join(part)}, found none.")
    items = []
    keys = [f"{row['question_id']}#{content_id(row['question'])[:6]}" for row in rows]
    for key, row in zip(distinct(keys), rows, strict=True):
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=(str(row["answer"]).strip().capitalize(),),
                choices=("Yes", "No"),
                cluster=f"{row['category']}/{row['question_id']}",
                pictures=(picture,) if picture else (),
                category=row["category"],
                fields={"question_id": str(row["question_id"])},
                row=row.get(POSITION),
            )
        )
    return items


def _text_rows(folder: Path) -> list[Row]:
    rows = []
    for file in data_files(folder):
        if file.suffix != ".txt":
            continue
        lines = [line.split("\t") for line in utf8(file).split("\n") if line.strip()]
        flat = file.parent == folder
        category = file.stem if flat else file.relative_to(folder).parts[0]
        for number, cells in enumerate(lines, start=1):
            if len(cells) < (3 if flat else 2):
                raise DataError(f"{file}:{number}: expected image, question, answer, separated by tabs, got {cells}.")
            image = cells[0] if flat else _picture_name(folder / category, file.stem)
            question, answer = cells[1:3] if flat else cells[:2]
            row = {"question_id": f"{category}/{image}", "question": question, "answer": answer, "category": category}
            rows.append(row | {"image": f"{category}/{image}"})
    return rows


def _picture_name(folder: Path, stem: str) -> str:
    found = [f for f in sorted(folder.rglob(f"{stem}.*")) if f.suffix != ".txt"]
    return str(found[0].relative_to(folder)) if found else f"{stem}.jpg"


def asked_twice(item: Item) -> Prompt:
    """Cambrian: the question, which itself ends with an instruction, and a second one."""
    return asked(item.question, SINGLE_WORD, pictures=item.pictures)


def asked_once(item: Item) -> Prompt:
    """lmms-eval: its instruction instead of the question's own."""
    return asked(item.question.strip().replace(INSTRUCTION, ""), SINGLE_WORD, pictures=item.pictures)


def own_script(reply: str, item: Item) -> Verdict:
    """MME's `calculation.py`: `yes` or else `no` within the first four characters; nothing is stripped."""
    head = reply.lower()[:4]
    answer = "Yes" if "yes" in head else "No" if "no" in head else None
    return Verdict(float(answer in item.gold), answer) if answer else Verdict(0.0, None)


def metrics(judge: Judge) -> tuple[Metric, ...]:
    """The sum over categories of accuracy and accuracy of images, and the share of right answers."""
    return Metric("score", judge, mme_total), Metric("accuracy", judge, items_mean)


def _task(part: str, categories: Sequence[str], size: int, folder: str = "") -> Task:
    return Task(
        key=f"mme_{part}",
        group="General",
        source=f"lmms-lab/MME test, {part}",
        size=size,
        max_new_tokens=LETTER_TOKENS,
        read=partial(read, categories),
        prompts={"cambrian": asked_twice, "lmms": asked_once, "vlmevalkit": as_it_is},
        metrics={
            "paper": metrics(judges.yes_no),
            "cambrian": metrics(cambrian.yes_no),
            "lmms": metrics(lmms.yes_no),
            "vlmevalkit": metrics(vlmevalkit.yes_no),
            "official": metrics(own_script),
        },
        hub=Hub("lmms-lab/MME", ("data/test-*.parquet",), "d6c9023f017b564f7b3ccccf5348166bce8fdbcd"),
        folder=folder,
    )


TASK = _task("perception", PERCEPTION, 2114)
COGNITION_TASK = _task("cognition", COGNITION, 260, folder="mme_perception")
