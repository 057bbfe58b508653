"""ChartQA: questions on charts, written by people (human_test) or by a model (augmented_test).

Masry et al., ChartQA, Findings of ACL 2022.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import Item, Prompt, base_of, content_id, distinct, picture_of
from kd_evalsuite.metrics import Judge, Metric, category_mean, items_mean
from kd_evalsuite.protocols import cambrian, shared, vlmevalkit
from kd_evalsuite.tables import Row, data_files, read_rows
from kd_evalsuite.tasks.base import WORD_TOKENS, Hub, Task, asked, in_a_word

PARTS = {"test_human": "human_test", "test_augmented": "augmented_test"}  # the original files, the public types


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns type, question, answer (text, or a list of one), image; or the original query, label, imgname.

    Of the original folders `test_human.json` and `test_augmented.json` with the charts in `png` beside them.
    """
    original = [file for file in data_files(folder) if file.stem in PARTS] if folder.exists() else []
    if original:
        rows = [_placed(row, file, folder) for file in original for row in _rows(file, pictures)]
    else:
        rows = _rows(folder, pictures)
    golds = [tuple(map(str, a)) if isinstance(a := row["answer"], list) else (str(a),) for row in rows]
    keys = [content_id(row.get("type"), row["question"], *gold) for row, gold in zip(rows, golds, strict=True)]
    items = []
    for key, row, gold in zip(distinct(keys), rows, golds, strict=True):
        picture = picture_of(row.get("image"), folder)
        items.append(
            Item(
                id=key,
                question=row["question"],
                gold=gold,
                pictures=(picture,) if picture else (),
                category=str(row.get("type") or ""),
            )
        )
    return items


def _rows(folder: Path, pictures: bool) -> list[Row]:
    rename = {"query": "question", "label": "answer", "imgname": "image"}
    return read_rows(folder, required=("question", "answer"), rename=rename, pictures=pictures)


def _placed(row: Row, file: Path, folder: Path) -> Row:
    """A row of an original file with its type, and where its chart is."""
    chart = file.parent / "png" / str(row.get("image") or "")
    place = {"image": str(chart.relative_to(base_of(folder)))} if chart.is_file() else {}
    return {"type": PARTS[file.stem], **row, **place}


def number_or_phrase(item: Item) -> Prompt:
    """Cambrian: the question and the wish for a number or phrase."""
    return asked(item.question, "Answer the question using a single number or phrase.", pictures=item.pictures)


def single_word(item: Item) -> Prompt:
    """lmms-eval: the question and the wish for one word."""
    return asked(item.question, "Answer the question with a single word.", pictures=item.pictures)


def metrics(judge: Judge) -> tuple[Metric, ...]:
    """Over all questions, and the mean of the human and the augmented ones."""
    return (
        Metric("relaxed_accuracy", judge, items_mean),
        Metric("relaxed_accuracy_by_type", judge, category_mean),
    )


TASK = Task(
    key="chartqa",
    group="OCR & Chart",
    source="lmms-lab/ChartQA test",
    size=2500,
    max_new_tokens=WORD_TOKENS,
    read=read,
    prompts={"cambrian": number_or_phrase, "lmms": single_word, "vlmevalkit": in_a_word},
    metrics={
        "paper": metrics(judges.relaxed),
        "cambrian": metrics(cambrian.relaxed),
        "lmms": metrics(shared.relaxed),
        "vlmevalkit": metrics(vlmevalkit.relaxed),
        "official": metrics(shared.relaxed),
    },
    hub=Hub("lmms-lab/ChartQA", ("data/test-*.parquet",)),
)
