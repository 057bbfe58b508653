"""Real benchmark questions in the columns of their public datasets."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from real import sources

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
OPTION = re.compile(r"^([A-Z])\. ", re.MULTILINE)
LETTERS = "ABCDEFGHIJ"


def options_of(text: str) -> tuple[str, list[str]]:
    """What stands before `A. `, and the options; an option may have several lines."""
    marks: list[re.Match[str]] = []
    for match in OPTION.finditer(text):
        if match[1] == LETTERS[len(marks)]:
            marks.append(match)
    if not marks:
        raise ValueError(f"Expected options from `A. ` on, found none in {text[:80]!r}.")
    ends = [m.start() for m in marks[1:]] + [len(text)]
    return text[: marks[0].start()].strip(), [text[m.end() : end].strip() for m, end in zip(marks, ends, strict=True)]


def scienceqa(data: Path) -> pa.Table:
    """derek-thomas/ScienceQA: image, question, choices, answer (index), hint."""
    rows = []
    for row in sources.questions(data, "scienceqa_sample"):
        text, choices = options_of(row["prompt_cqm"].removeprefix("<image>\n"))
        hint = ""
        if text.startswith("Context: "):
            hint, _, text = text.removeprefix("Context: ").partition("\n")
        file = data / "scienceqa_sample" / row["image"]
        rows.append(
            {
                "image": picture(file),
                "question": text,
                "choices": choices,
                "answer": LETTERS.index(row["answer"]),
                "hint": hint,
            }
        )
    return pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                ("image", IMAGE),
                ("question", pa.string()),
                ("choices", pa.list_(pa.string())),
                ("answer", pa.int8()),
                ("hint", pa.string()),
            ]
        ),
    )


def chartqa(data: Path) -> pa.Table:
    """lmms-lab/ChartQA: type, question, answer, image."""
    rows = [
        {
            "type": row["split"].removeprefix("test_") + "_test",
            "question": row["query"],
            "answer": row["label"],
            "image": picture(data / "chartqa_sample" / "images" / row["imgname"]),
        }
        for row in sources.questions(data, "chartqa_sample")
    ]
    fields = [("type", pa.string()), ("question", pa.string()), ("answer", pa.string()), ("image", IMAGE)]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def mmbench(data: Path) -> pa.Table:
    """lmms-lab/MMBench_EN: index, question, hint, A to D, answer, image; without CCBench's questions, in Chinese."""
    rows = []
    for row in sources.questions(data, "mmbench_samples"):
        file = data / "mmbench_samples" / row["image"]
        if not file.stem.startswith("MMBench_"):
            continue
        body = row["raw"].split("Options:", 1)[1].rsplit("ANSWER.", 1)[0]
        _, choices = options_of(body)
        cells: dict[str, Any] = {"index": int(file.stem.removeprefix("MMBench_")), "question": row["question"]}
        cells |= {letter: choices[i] if i < len(choices) else None for i, letter in enumerate("ABCD")}
        rows.append({**cells, "hint": None, "answer": row["answer"], "image": picture(file)})
    text = [(name, pa.string()) for name in ("question", "hint", "A", "B", "C", "D", "answer")]
    return pa.Table.from_pylist(rows, pa.schema([("index", pa.int64()), *text, ("image", IMAGE)]))


TABLES = {
    "scienceqa": (scienceqa, "test-00000-of-00001.parquet"),
    "chartqa": (chartqa, "test-00000-of-00001.parquet"),
    "mmbench_en": (mmbench, "dev-00000-of-00001.parquet"),
}


def picture(file: Path) -> dict[str, Any]:
    """An image as the Hub's parquet files hold it."""
    return {"bytes": file.read_bytes(), "path": file.name}


def write_benchmarks(data: Path, out: Path) -> None:
    """One folder a benchmark."""
    for name, (table, file) in TABLES.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(table(data), out / name / file)
