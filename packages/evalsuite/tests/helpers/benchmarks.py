"""All sixteen benchmarks in the columns of their public datasets, small: coloured squares and questions on them."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = ("red", "green", "blue", "white")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
N = 12


def png(k: int) -> bytes:
    """A square whose colour and brightness depend on k."""
    tint = [40, 40, 40]
    tint[k % 3] = 100 + 13 * (k % 12)
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), tuple(tint)).save(stream, "PNG")
    return stream.getvalue()


def cell(k: int) -> dict:
    return {"bytes": png(k), "path": f"{k}.png"}


def write_parquet(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [n for n in rows[0] if n == "image" or n == "decoded_image" or n.startswith("image_")]
    table = pa.Table.from_pylist(rows)
    for name in names:
        column = [row[name] for row in rows]
        if isinstance(next((c for c in column if c is not None), {}), dict):
            table = table.set_column(table.column_names.index(name), name, pa.array(column, IMAGE))
    pq.write_table(table, path)


def mme(root: Path) -> None:
    rows = [
        {
            "question_id": f"{category}/{k // 2}.png",
            "image": cell(k // 2),
            "question": f"Is the square {COLOURS[(k // 2 + k % 2) % 3]}? Please answer yes or no.",
            "answer": "Yes" if k % 2 == 0 else "No",
            "category": category,
        }
        for category in ("color", "count", "code_reasoning")
        for k in range(N)
    ]
    write_parquet(root / "mme_perception/data/test-00000-of-00001.parquet", rows)


def mmbench(root: Path) -> None:
    rows = [
        {
            "index": base + 1_000_000 * turn,
            "question": f"What colour is square {base}?",
            "hint": "Look closely." if base == 0 else "nan",
            **{"ABCD"[(i + turn) % 4]: COLOURS[i] for i in range(4)},
            "answer": "ABCD"[(base + turn) % 4],
            "category": "color",
            "image": cell(base),
            "source": "made",
            "l2-category": "perception",
            "comment": "nan",
            "split": "dev",
        }
        for base in range(3)
        for turn in range(4)
    ]
    write_parquet(root / "mmbench_en/data/dev-00000-of-00001.parquet", rows)


def seedbench(root: Path) -> None:
    rows = [
        {
            "answer": "ABCD"[k % 4],
            **{f"choice_{'abcd'[i]}": COLOURS[i] for i in range(4)},
            "data_id": f"{k}.png",
            "data_type": "image" if k < N else "video",
            "question": f"What colour is square {k}?",
            "question_id": str(k),
            "question_type_id": 1 + k % 9,
            "image": [cell(k)] if k < N else [cell(k)] * 8,
        }
        for k in range(N + 2)
    ]
    path = root / "seedbench_image/data/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    images = pa.array([row["image"] for row in rows], pa.list_(IMAGE))
    pq.write_table(table.set_column(table.column_names.index("image"), "image", images), path)


def gqa(root: Path) -> None:
    questions = [
        {
            "id": f"2{k:07d}",
            "imageId": f"n{k // 4}",
            "question": f"What colour is square {k}?",
            "answer": COLOURS[k % 4],
            "fullAnswer": f"It is {COLOURS[k % 4]}.",
            "isBalanced": True,
            "types": {"structural": "query", "semantic": "attr", "detailed": "color"},
        }
        for k in range(N)
    ]
    images = [{"id": f"n{k}", "image": cell(k)} for k in range(N // 4)]
    write_parquet(root / "gqa/testdev_balanced_instructions/testdev-00000-of-00001.parquet", questions)
    write_parquet(root / "gqa/testdev_balanced_images/testdev-00000-of-00001.parquet", images)


def scienceqa(root: Path) -> None:
    rows = [
        {
            "image": cell(k) if k % 3 else None,
            "question": f"Which colour is number {k}?",
            "choices": list(COLOURS[: 2 + k % 3]),
            "answer": k % 2,
            "hint": "A fact." if k % 2 else "",
            "task": "closed choice",
            "grade": "grade2",
            "subject": "natural science",
        }
        for k in range(N)
    ]
    write_parquet(root / "scienceqa/data/test-00000-of-00001.parquet", rows)


def mmmu(root: Path) -> None:
    rows = [
        {
            "id": f"validation_Art_{k}",
            "question": f"<image 1> What colour is it, number {k}?",
            "options": "[]" if k % 4 == 3 else str(list(COLOURS)),
            "explanation": "",
            "image_1": cell(k),
            "image_2": cell(k + 1) if k % 2 else None,
            "img_type": "['Pictures']",
            "answer": "['3', '3.0']" if k % 4 == 3 else "ABCD"[k % 4],
            "topic_difficulty": "Easy",
            "question_type": "open" if k % 4 == 3 else "multiple-choice",
            "subfield": "Colour",
        }
        for k in range(N)
    ]
    write_parquet(root / "mmmu/data/validation-00000-of-00001.parquet", rows)


def mathvista(root: Path) -> None:
    kinds = [("text", None), ("integer", None), ("float", 1.0), ("list", None)]
    golds = ["red", "7", "1.5", "[1, 2]"]
    rows = [
        {
            "pid": str(k),
            "question": "How many?",
            "image": f"images/{k}.jpg",
            "decoded_image": cell(k),
            "choices": list(COLOURS) if k % 4 == 0 else None,
            "unit": None,
            "precision": kinds[k % 4][1],
            "answer": golds[k % 4],
            "question_type": "multi_choice" if k % 4 == 0 else "free_form",
            "answer_type": kinds[k % 4][0],
            "metadata": {"task": "figure question answering", "category": "general-vqa"},
            "query": f"Hint: Please answer the question.\nQuestion: How many, {k}?",
        }
        for k in range(N)
    ]
    write_parquet(root / "mathvista/data/testmini-00000-of-00001.parquet", rows)


def ai2d(root: Path) -> None:
    rows = [
        {"question": f"What eats {k}?", "options": list(COLOURS), "answer": str(k % 4), "image": cell(k)}
        for k in range(N)
    ]
    write_parquet(root / "ai2d/data/test-00000-of-00001.parquet", rows)


def chartqa(root: Path) -> None:
    rows = [
        {
            "type": "human_test" if k % 2 else "augmented_test",
            "question": f"What is bar {k}?",
            "answer": str(10 + k),
            "image": cell(k),
        }
        for k in range(N)
    ]
    write_parquet(root / "chartqa/data/test-00000-of-00001.parquet", rows)


def ocrbench(root: Path) -> None:
    rows = [
        {
            "dataset": "made",
            "question": f"what is written in image {k}?",
            "question_type": "Regular Text Recognition",
            "answer": [f"WORD{k}"],
            "image": cell(k),
        }
        for k in range(N)
    ]
    write_parquet(root / "ocrbench/data/test-00000-of-00001.parquet", rows)


def textvqa(root: Path) -> None:
    rows = [
        {
            "image_id": f"i{k // 2}",
            "question_id": k,
            "question": f"what does sign {k} say?",
            "image": cell(k // 2),
            "answers": [f"word{k}"] * 10,
            "ocr_tokens": [f"word{k}", "stop"],
        }
        for k in range(N)
    ]
    write_parquet(root / "textvqa/data/validation-00000-of-00001.parquet", rows)


def docvqa(root: Path) -> None:
    rows = [
        {
            "questionId": str(k),
            "question": f"What is total {k}?",
            "question_types": ["form"],
            "image": cell(k // 3),
            "docId": k // 3,
            "answers": [f"${k}.00"],
            "data_split": "val",
        }
        for k in range(N)
    ]
    write_parquet(root / "docvqa/DocVQA/validation-00000-of-00001.parquet", rows)


def mmvp(root: Path) -> None:
    folder = root / "mmvp/MMVP Images"
    folder.mkdir(parents=True)
    with (root / "mmvp/Questions.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["lndex", "Question", "Options", "Correct Answer"])
        for k in range(1, N + 1):
            writer.writerow([k, "Is it red or blue?", "(a) Red (b) Blue", "(a)" if k % 2 else "(b)"])
            (folder / f"{k}.jpg").write_bytes(png(k))


def realworldqa(root: Path) -> None:
    rows = [
        {
            "image": cell(k),
            "question": f"Which way, {k}?\nA. Left\nB. Right\nC. Ahead\nPlease answer directly with only the letter."
            if k % 3
            else f"How many cars, {k}? Please answer directly with a single word or number.",
            "answer": "ABC"[k % 3] if k % 3 else "Two",
            "image_path": f"{k}.webp",
        }
        for k in range(N)
    ]
    write_parquet(root / "realworldqa/data/test-00000-of-00001.parquet", rows)


def cvbench(root: Path, part: str) -> None:
    rows = [
        {
            "idx": k,
            "type": part,
            "task": "Count" if part == "2D" else "Depth",
            "image": cell(k),
            "question": f"How many, {k}?",
            "choices": ["1", "2"],
            "answer": "(A)" if k % 2 else "(B)",
            "prompt": f"How many, {k}? Select from the following choices.\n(A) 1\n(B) 2",
            "filename": f"{k}.png",
            "source": ["ADE20K", "COCO"][k % 2] if part == "2D" else "Omni3D",
        }
        for k in range(N)
    ]
    write_parquet(root / f"cvbench_{part.lower()}/test_{part.lower()}.parquet", rows)


def write_all(root: Path) -> None:
    for write in (
        mme, mmbench, seedbench, gqa, scienceqa, mmmu, mathvista, ai2d, chartqa, ocrbench, textvqa, docvqa, mmvp,
        realworldqa,
    ):  # fmt: skip
        write(root)
    cvbench(root, "2D")
    cvbench(root, "3D")


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
