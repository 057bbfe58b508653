"""Vision-centric: MMVP, RealWorldQA, CV-Bench 2D and 3D."""

import csv
import io
from pathlib import Path
from typing import Any

from world.benchmarks.items import Items, shares
from world.benchmarks.tables import IMAGE, image, write_parquet
from world.benchmarks.twins import twin
from world.files import write_bytes, write_text
from world.kinds.catalogue import SAMPLERS
from world.kinds.objects import sample_objects
from world.kinds.room import sample_room
from world.prompts import ONLY_LETTER, ONLY_WORD, SELECT, bracketed, letter, lettered
from world.scene import Question, Scene, sample, yes_no

MMVP_TOPICS = {  # topic: kind of picture
    "colour": "objects",
    "shape": "objects",
    "relation": "objects",
    "position": "objects",
    "count": "objects",
    "depth": "room",
    "reading": "sign",
    "mood": "portrait",
}
MMVP_HEADER = ("lndex", "Question", "Options", "Correct Answer")  # sic


def write_mmvp(folder: Path, items: Items, count: int) -> None:
    """`MMVP/MMVP`: two images that differ in one thing, the same question, the other answer; neighbouring rows."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(MMVP_HEADER)
    pairs = [pair for topic, n in shares(count // 2, MMVP_TOPICS).items() for pair in _twins(topic, n, items)]
    items.rng.shuffle(pairs)
    for number, (text, halves) in enumerate(pairs):
        answers = [answer for _, answer in halves]
        items.rng.shuffle(answers)
        options = f"(a) {answers[0]} (b) {answers[1]}"
        for k, (scene, gold) in enumerate(halves):
            row = 2 * number + k + 1
            writer.writerow((row, text, options, "(a)" if gold == answers[0] else "(b)"))
            write_bytes(folder / "MMVP Images" / f"{row}.jpg", items.jpeg(scene, number))
    write_text(folder / "Questions.csv", table.getvalue())


def _twins(topic: str, number: int, items: Items) -> list[tuple[str, list[tuple[Scene, str]]]]:
    """`number` pairs: the text of a question and two scenes, each with its own answer to it."""
    sampler = SAMPLERS[MMVP_TOPICS[topic]]
    found: list[tuple[str, list[tuple[Scene, str]]]] = []
    while len(found) < number:
        scene = sample(sampler, "test", items.rng)
        questions = [q for q in scene.questions(items.rng) if q.topic == topic]
        if not questions:
            continue
        question = items.rng.choice(questions)
        if (other := twin(scene, question, sampler, "test", items.rng)) is not None:
            found.append((question.text, [(scene, question.answer), other]))
    return found


REALWORLDQA_TOPICS = ("depth", "colour", "room count")
REALWORLDQA_COLUMNS = {"image": IMAGE, "question": "string", "answer": "string", "image_path": "string"}


def write_realworldqa(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/RealWorldQA`: the question says itself how to answer: a letter, a word or a number."""
    rows = []
    for number, (scene, (question,)) in enumerate(items.deal(sample_room, shares(count, REALWORLDQA_TOPICS))):
        text, answer = _instructed(question, items, by_letter=number % 2 == 0)
        path = f"{number}.jpg"
        picture = image(items.jpeg(scene, number), path)
        rows.append({"image": picture, "question": text, "answer": answer, "image_path": path})
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", REALWORLDQA_COLUMNS, rows)


def _instructed(question: Question, items: Items, *, by_letter: bool) -> tuple[str, str]:
    if by_letter:
        options, position = items.options(question)
        return question.text + lettered(options) + ONLY_LETTER, letter(position)
    if question.topic == "depth":
        question = yes_no(question, items.rng)[items.rng.randrange(2)]
    return question.text + ONLY_WORD, question.answer.capitalize()


CVBENCH_TOPICS = {"count": "Count", "relation": "Relation", "depth": "Depth", "distance": "Distance"}
CVBENCH_COLUMNS = {
    "idx": "int64",
    "type": "string",
    "task": "string",
    "image": IMAGE,
    "question": "string",
    "choices": ["string"],
    "answer": "string",
    "prompt": "string",
    **dict.fromkeys(("filename", "source", "source_dataset", "source_filename", "target_class"), "string"),
    "target_size": "int64",
    "bbox": [["float64"]],
}


def write_cvbench_2d(folder: Path, items: Items, count: int) -> None:
    """`nyu-visionx/CV-Bench` 2D: counts and relations; two sources, scored apart by the official metric."""
    dealt = items.deal(sample_objects, shares(count, ("count", "relation")))
    rows = [
        _cvbench_row(n, scene, question, items, ("ADE20K", "COCO")[n % 2])
        for n, (scene, (question,)) in enumerate(dealt)
    ]
    write_parquet(folder / "test_2d.parquet", CVBENCH_COLUMNS, rows)


def write_cvbench_3d(folder: Path, items: Items, count: int) -> None:
    """`nyu-visionx/CV-Bench` 3D: which is closer, to the camera or to another object."""
    dealt = items.deal(sample_room, shares(count, ("depth", "distance")))
    rows = [_cvbench_row(n, scene, question, items, "Omni3D") for n, (scene, (question,)) in enumerate(dealt)]
    write_parquet(folder / "test_3d.parquet", CVBENCH_COLUMNS, rows)


def _cvbench_row(number: int, scene: Scene, question: Question, items: Items, source: str) -> dict[str, Any]:
    options, position = items.options(question)
    kind = "3D" if source == "Omni3D" else "2D"
    name = f"img/{kind}/{number:06d}.jpg"
    return {
        "idx": number,
        "type": kind,
        "task": CVBENCH_TOPICS[question.topic],
        "image": image(items.jpeg(scene, number), name),
        "question": question.text,
        "choices": options,
        "answer": f"({letter(position)})",
        "prompt": question.text + SELECT + bracketed(options),
        "filename": name,
        "source": source,
        "source_dataset": "world",
        "source_filename": name,
        "target_class": None,
        "target_size": None,
        "bbox": None,
    }
