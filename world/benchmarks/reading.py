"""OCR and charts: ChartQA, OCRBench, TextVQA, DocVQA."""

from pathlib import Path
from typing import Any

from world.benchmarks.items import Items, by_kind, shares
from world.benchmarks.tables import IMAGE, image, write_parquet
from world.kinds.chart import sample_chart
from world.kinds.document import sample_document
from world.kinds.sign import proposed_words, sample_sign
from world.scene import Question, Scene

CHARTQA_TOPICS = {"value": "augmented_test", "extreme": "human_test", "compare": "human_test", "sum": "human_test"}
CHARTQA_COLUMNS = {"type": "string", "question": "string", "answer": "string", "image": IMAGE}


def write_chartqa(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/ChartQA`: values read off one bar, and comparisons; several questions share a chart."""
    rows = []
    for number, (scene, questions) in enumerate(items.deal(sample_chart, shares(count, CHARTQA_TOPICS), per_scene=2)):
        picture = image(items.jpeg(scene, number), f"{number}.jpg")
        for question in questions:
            answer = question.answer.capitalize()
            rows.append(
                {"type": CHARTQA_TOPICS[question.topic], "question": question.text, "answer": answer, "image": picture}
            )
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", CHARTQA_COLUMNS, items.shuffled(rows))


OCRBENCH_TOPICS: dict[str, tuple[str, str]] = {  # topic: kind of picture, question type
    "reading": ("sign", "Regular Text Recognition"),
    "board": ("sign", "Scene Text-centric VQA"),
    "form name": ("document", "Doc-oriented VQA"),
    "form total": ("document", "Key Information Extraction"),
}
OCRBENCH_COLUMNS = {
    "dataset": "string",
    "question": "string",
    "question_type": "string",
    "answer": ["string"],
    "image": IMAGE,
}


def write_ocrbench(folder: Path, items: Items, count: int) -> None:
    """`echo840/OCRBench`: short answers, any of a list."""
    rows = [
        {
            "dataset": "world",
            "question": question.text,
            "question_type": OCRBENCH_TOPICS[question.topic][1],
            "answer": [question.answer],
            "image": image(items.jpeg(scene, number), f"{number}.jpg"),
        }
        for number, (scene, question) in enumerate(items.mixed(by_kind(count, OCRBENCH_TOPICS)))
    ]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", OCRBENCH_COLUMNS, rows)


TEXTVQA_COLUMNS = {
    "image_id": "string",
    "question_id": "int32",
    "question": "string",
    "question_tokens": ["string"],
    "image": IMAGE,
    "image_width": "int32",
    "image_height": "int32",
    "flickr_original_url": "string",
    "flickr_300k_url": "string",
    "answers": ["string"],
    "image_classes": ["string"],
    "set_name": "string",
    "ocr_tokens": ["string"],
}
ANNOTATORS = 10


def write_textvqa(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/textvqa`: ten answers, and words that a text recogniser proposes, one of them right."""
    dealt = items.deal(sample_sign, shares(count, ("reading", "board")))
    rows = [_textvqa_row(number, scene, question, items) for number, (scene, (question,)) in enumerate(dealt)]
    write_parquet(folder / "data" / "validation-00000-of-00001.parquet", TEXTVQA_COLUMNS, rows)


def _textvqa_row(number: int, scene: Scene, question: Question, items: Items) -> dict[str, Any]:
    image_id = f"{number:016x}"
    answers = [question.answer] * (ANNOTATORS - 2) + [f"the {question.answer}", question.answer.capitalize()]
    items.rng.shuffle(answers)
    word = next(q.answer for q in scene.questions(items.rng) if q.topic == "reading")
    return {
        "image_id": image_id,
        "question_id": number,
        "question": question.text,
        "question_tokens": question.text.lower().rstrip("?").split(),
        "image": image(items.jpeg(scene, number), f"{image_id}.jpg"),
        "image_width": items.pen.size,
        "image_height": items.pen.size,
        "flickr_original_url": "",
        "flickr_300k_url": "",
        "answers": answers,
        "image_classes": ["Sign"],
        "set_name": "val",
        "ocr_tokens": proposed_words(word, items.rng),
    }


DOCVQA_COLUMNS = {
    "questionId": "string",
    "question": "string",
    "question_types": ["string"],
    "image": IMAGE,
    "docId": "int64",
    "ucsf_document_id": "string",
    "ucsf_document_page_no": "string",
    "answers": ["string"],
    "data_split": "string",
}


def write_docvqa(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/DocVQA`, validation: forms, several questions a page."""
    quotas = shares(count, ("form name", "form total", "form order"))
    rows = []
    for number, (scene, questions) in enumerate(items.deal(sample_document, quotas, per_scene=3)):
        picture = image(items.jpeg(scene, number), f"form{number:04d}_1.jpg")
        for k, question in enumerate(questions):
            rows.append(
                {
                    "questionId": str(1000 + 10 * number + k),
                    "question": question.text,
                    "question_types": ["form"],
                    "image": picture,
                    "docId": number,
                    "ucsf_document_id": f"form{number:04d}",
                    "ucsf_document_page_no": "1",
                    "answers": sorted({question.answer, question.answer.capitalize()}),
                    "data_split": "val",
                }
            )
    write_parquet(folder / "DocVQA" / "validation-00000-of-00001.parquet", DOCVQA_COLUMNS, items.shuffled(rows))
