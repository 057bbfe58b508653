"""Knowledge: ScienceQA, MMMU, MathVista, AI2D."""

from pathlib import Path
from typing import Any

from world.benchmarks.items import Items, by_kind, shares
from world.benchmarks.tables import IMAGE, image, write_parquet
from world.facts import facts
from world.kinds.diagram import sample_diagram
from world.kinds.objects import sample_objects
from world.lexicon import a
from world.prompts import HINTS, letter, mathvista_query
from world.scene import Question, Scene, sample

SCIENCEQA_TOPICS: dict[str, tuple[str, str]] = {  # topic: kind of picture, subject
    "place": ("flag", "social science"),
    "labelled shape": ("diagram", "natural science"),
    "shape": ("objects", "natural science"),
    "depth": ("room", "natural science"),
    "extreme": ("chart", "natural science"),
}
SCIENCEQA_COLUMNS = {
    "image": IMAGE,
    "question": "string",
    "choices": ["string"],
    "answer": "int8",
    **dict.fromkeys(
        ("hint", "task", "grade", "subject", "topic", "category", "skill", "lecture", "solution"), "string"
    ),
}


def write_scienceqa(folder: Path, items: Items, count: int) -> None:
    """`derek-thomas/ScienceQA`: two items in five have no image and ask for a fact of the world."""
    texts = count * 2 // 5
    quotas = by_kind(count - texts, SCIENCEQA_TOPICS)
    rows = []
    for number, (scene, question) in enumerate(items.mixed(quotas)):
        picture = image(items.jpeg(scene, number), "image.jpg")
        rows.append(_scienceqa_row(picture, question, SCIENCEQA_TOPICS[question.topic][1], items))
    for topic, number in shares(texts, sorted({fact.topic for fact in facts()})).items():
        known = [fact for fact in facts() if fact.topic == topic]
        rows += [_scienceqa_row(None, items.rng.choice(known), "natural science", items) for _ in range(number)]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", SCIENCEQA_COLUMNS, items.shuffled(rows))


def _scienceqa_row(picture: dict[str, Any] | None, question: Question, subject: str, items: Items) -> dict[str, Any]:
    options, position = items.options(question)
    return {
        "image": picture,
        "question": question.text,
        "choices": options,
        "answer": position,
        "hint": HINTS.get(question.topic, ""),
        "task": "closed choice",
        "grade": "grade2",
        "subject": subject,
        "topic": question.topic,
        "category": question.topic,
        "skill": question.topic,
        "lecture": "",
        "solution": "",
    }


MMMU_TOPICS: dict[str, tuple[str, str, bool]] = {  # topic: kind of picture, subject, multiple choice or open
    "pattern": ("artwork", "Art", True),
    "place": ("flag", "Geography", True),
    "extreme": ("chart", "Economics", True),
    "sum": ("chart", "Math", False),
    "form total": ("document", "Accounting", False),
    "shape": ("objects", "Design", True),
}
MMMU_COLUMNS = {
    **dict.fromkeys(("id", "question", "options", "explanation"), "string"),
    **{f"image_{k}": IMAGE for k in range(1, 8)},
    **dict.fromkeys(("img_type", "answer", "topic_difficulty", "question_type", "subfield"), "string"),
}


def write_mmmu(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/MMMU`: options as the text of a list, `<image k>` marks, open questions, some with two images."""
    pairs = max(2, count // 12)
    quotas = by_kind(count - pairs, MMMU_TOPICS)
    rows = []
    for number, (scene, question) in enumerate(items.mixed(quotas)):
        _, subject, is_choice = MMMU_TOPICS[question.topic]
        options, position = items.options(question) if is_choice else ([], 0)
        answer = letter(position) if is_choice else question.answer
        text = f"<image 1> {question.text}"
        rows.append(_mmmu_row(number, subject, text, options, answer, [items.jpeg(scene, number)]))
    rows += [_mmmu_pair(count - pairs + number, items, is_first=number % 2 == 0) for number in range(pairs)]
    write_parquet(folder / "data" / "validation-00000-of-00001.parquet", MMMU_COLUMNS, items.shuffled(rows))


def _mmmu_pair(number: int, items: Items, *, is_first: bool) -> dict[str, Any]:
    """Which of two pictures shows a shape: the first alone decides, since exactly one of them does."""
    one, other = (sample(sample_objects, "test", items.rng) for _ in range(2))
    shape = items.rng.choice(one.things).shape
    while any(thing.shape == shape for thing in other.things):
        other = sample(sample_objects, "test", items.rng)
    jpegs = [items.jpeg(one, number, 1), items.jpeg(other, number, 2)]
    text = f"<image 1> <image 2> Which image shows {a(shape)}?"
    options = ["the first image", "the second image"]
    return _mmmu_row(number, "Design", text, options, "A" if is_first else "B", jpegs if is_first else jpegs[::-1])


def _mmmu_row(
    number: int, subject: str, text: str, options: list[str], answer: str, jpegs: list[bytes]
) -> dict[str, Any]:
    name = f"validation_{subject}_{number}"
    cells = [image(jpeg, f"{name}_{k}.jpg") for k, jpeg in enumerate(jpegs, start=1)]
    return {
        "id": name,
        "question": text,
        "options": repr(options),
        "explanation": "",
        **{f"image_{k}": cells[k - 1] if k <= len(cells) else None for k in range(1, 8)},
        "img_type": "['Drawings']",
        "answer": answer,
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice" if options else "open",
        "subfield": subject,
    }


MATHVISTA_TOPICS: dict[str, tuple[str, str, str]] = {  # topic: kind of picture, question type, answer type
    "value": ("chart", "free_form", "integer"),
    "sum": ("chart", "free_form", "integer"),
    "mean": ("chart", "free_form", "float"),
    "extreme": ("chart", "multi_choice", "text"),
    "count": ("objects", "free_form", "integer"),
    "total": ("objects", "multi_choice", "text"),
}
MATHVISTA_METADATA = {
    **dict.fromkeys(("category", "context", "grade"), "string"),
    "img_height": "int64",
    "img_width": "int64",
    "language": "string",
    "skills": ["string"],
    **dict.fromkeys(("source", "split", "task"), "string"),
}
MATHVISTA_COLUMNS = {
    **dict.fromkeys(("pid", "question", "image"), "string"),
    "decoded_image": IMAGE,
    "choices": ["string"],
    "unit": "string",
    "precision": "float64",
    **dict.fromkeys(("answer", "question_type", "answer_type"), "string"),
    "metadata": MATHVISTA_METADATA,
    "query": "string",
}


def write_mathvista(folder: Path, items: Items, count: int) -> None:
    """`AI4Math/MathVista`: multiple choice, integers and numbers with one decimal."""
    quotas = by_kind(count, MATHVISTA_TOPICS)
    rows = [_mathvista_row(n, scene, question, items) for n, (scene, question) in enumerate(items.mixed(quotas), 1)]
    write_parquet(folder / "data" / "testmini-00000-of-00001.parquet", MATHVISTA_COLUMNS, rows)


def _mathvista_row(number: int, scene: Scene, question: Question, items: Items) -> dict[str, Any]:
    kind, question_type, answer_type = MATHVISTA_TOPICS[question.topic]
    options = items.options(question)[0] if question_type == "multi_choice" else None
    path = f"images/{number}.jpg"
    metadata = {
        "category": "general-vqa" if kind == "objects" else "math-targeted-vqa",
        "context": "bar chart" if kind == "chart" else "synthetic scene",
        "grade": "elementary school",
        "img_height": items.pen.size,
        "img_width": items.pen.size,
        "language": "english",
        "skills": ["arithmetic reasoning" if question.topic in ("sum", "mean") else "statistical reasoning"],
        "source": "world",
        "split": "testmini",
        "task": "figure question answering",
    }
    return {
        "pid": str(number),
        "question": question.text,
        "image": path,
        "decoded_image": image(items.jpeg(scene, number), path),
        "choices": options,
        "unit": None,
        "precision": 1.0 if answer_type == "float" else None,
        "answer": question.answer,
        "question_type": question_type,
        "answer_type": answer_type,
        "metadata": metadata,
        "query": mathvista_query(question.text, options, answer_type),
    }


AI2D_COLUMNS = {"question": "string", "options": ["string"], "answer": "string", "image": IMAGE}


def write_ai2d(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/ai2d`: diagrams with letters; four options, the answer as a position from "0"."""
    rows = []
    dealt = items.deal(sample_diagram, shares(count, ("label", "labelled shape")))
    for number, (scene, (question,)) in enumerate(dealt):
        options, position = items.options(question)
        picture = image(items.jpeg(scene, number), f"{number}.jpg")
        rows.append({"question": question.text, "options": options, "answer": str(position), "image": picture})
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", AI2D_COLUMNS, rows)
