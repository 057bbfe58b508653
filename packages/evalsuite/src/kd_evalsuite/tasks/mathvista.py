"""MathVista, testmini: mathematics in pictures; options, integers, floats and lists.

Lu et al., MathVista, ICLR 2024.
"""

from pathlib import Path

from kd_evalsuite import judges
from kd_evalsuite.items import DataError, Item, Prompt, picture_of
from kd_evalsuite.metrics import Metric, items_mean
from kd_evalsuite.protocols import cambrian, lmms, vlmevalkit
from kd_evalsuite.protocols import mathvista as rules
from kd_evalsuite.tables import present, read_rows, texts
from kd_evalsuite.tasks.base import LETTER_DIRECTLY, SINGLE_WORD, Hub, Task, asked, lettered
from kd_evalsuite.text import LETTERS

REASON = "First show your reasoning process and then give the final answer."
REASONING_TOKENS = 128


def read(folder: Path, pictures: bool) -> list[Item]:
    """Columns pid, query, choices (or null), answer (an option's text), answer_type, precision, image."""
    required = ("pid", "query", "choices", "answer", "answer_type")
    rows = read_rows(folder, split="testmini", required=required, pictures=pictures)
    items = []
    for row in rows:
        choices = texts(row["choices"] or ())
        answer = str(row["answer"])
        if choices and answer not in choices:
            raise DataError(f"MathVista {row['pid']}: expected the answer among {choices}, got {answer!r}.")
        cell = row["decoded_image"] if row.get("decoded_image") is not None else row.get("image")
        picture = picture_of(cell, folder)
        items.append(
            Item(
                id=str(row["pid"]),
                question=row["query"],
                gold=tuple(LETTERS[i] for i, c in enumerate(choices) if c == answer) if choices else (answer,),
                choices=choices,
                pictures=(picture,) if picture else (),
                category=str((row.get("metadata") or {}).get("task") or ""),
                fields={
                    "answer_type": str(row["answer_type"]),
                    "precision": _places(row.get("precision")),
                    "question": str(row.get("question") or row["query"]),
                    "unit": str(row["unit"]) if present(row.get("unit")) else "",
                },
            )
        )
    return items


def _places(precision: object) -> float | None:
    """Digits behind the point that an answer has; not all questions say it."""
    if not present(precision):
        return None
    value = float(str(precision))
    if not 0 <= value <= 20:
        raise DataError(f"MathVista: expected a precision from 0 to 20, got {precision!r:.40}.")
    return value


def query(item: Item) -> Prompt:
    """VLMEvalKit: the dataset's own query: hint, question, options."""
    return asked(item.question, pictures=item.pictures)


def reasoning(item: Item) -> Prompt:
    """Cambrian: the query and one more instruction."""
    return asked(item.question, REASON if item.choices else SINGLE_WORD, pictures=item.pictures)


def formatted(item: Item) -> Prompt:
    """lmms-eval's task `_format`: the bare question with its unit, options, and which form the answer must have."""
    unit = item.fields["unit"]
    question = f"{item.fields['question']} (Unit: {unit})" if unit else item.fields["question"]
    if item.choices:
        return asked(question, lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)
    return asked(question, _wish(item), pictures=item.pictures)


def _wish(item: Item) -> str:
    kind, precision = item.fields["answer_type"], item.fields["precision"]
    places = {1: " with one decimal place", 2: " with two decimal places"}.get(int(precision or 0), "")
    return {
        "integer": "Answer the question using a single integer number.",
        "float": f"Answer the question using a single floating-point number{places}.",
        "list": "Answer the question using a Python list.",
    }.get(kind, SINGLE_WORD)


ACCURACY = {
    "paper": judges.typed,
    "cambrian": cambrian.mathvista,
    "lmms": lmms.mathvista_static,
    "vlmevalkit": vlmevalkit.mathvista,
    "official": rules.verdict,
}

TASK = Task(
    key="mathvista",
    group="Knowledge",
    source="AI4Math/MathVista testmini",
    size=1000,
    max_new_tokens=REASONING_TOKENS,
    read=read,
    prompts={"cambrian": reasoning, "lmms": formatted, "vlmevalkit": query},
    metrics={protocol: (Metric("accuracy", judge, items_mean),) for protocol, judge in ACCURACY.items()},
    hub=Hub("AI4Math/MathVista", ("data/testmini-*.parquet",)),
    scorer="2",
)
