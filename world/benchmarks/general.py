"""General: MME, MMBench, SEED-Bench, GQA."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from world.benchmarks.items import Items, by_kind, shares
from world.benchmarks.tables import IMAGE, image, write_parquet
from world.kinds.objects import sample_objects
from world.prompts import HINTS, YES_OR_NO, letter
from world.scene import Question, Scene, yes_no

MME_CATEGORIES: dict[str, tuple[str, tuple[str, ...]]] = {  # category: kind of picture, topics
    "existence": ("objects", ("existence",)),
    "count": ("objects", ("count",)),
    "position": ("objects", ("relation",)),
    "color": ("objects", ("colour",)),
    "posters": ("sign", ("reading",)),
    "celebrity": ("portrait", ("person",)),
    "scene": ("any", ("picture",)),
    "landmark": ("flag", ("place",)),
    "artwork": ("artwork", ("pattern",)),
    "OCR": ("document", ("form name", "form total")),
    "numerical_calculation": ("chart", ("sum",)),  # cognition: not part of the perception score
}
MME_COLUMNS = {"question_id": "string", "image": IMAGE, "question": "string", "answer": "string", "category": "string"}


def write_mme(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/MME`: two questions an image, one answered yes and one no, in neighbouring rows."""
    rows = []
    for category, (kind, topics) in MME_CATEGORIES.items():
        dealt = items.mixed({kind: shares(max(2, count // 20), topics)})
        for number, (scene, asked) in enumerate(dealt):
            picture = image(items.jpeg(scene, category, number), f"{number:04d}.jpg")
            for question in _both_answers(scene, asked, items):
                rows.append(
                    {
                        "question_id": f"{category}/{number:04d}.jpg",
                        "image": picture,
                        "question": question.text + YES_OR_NO,
                        "answer": question.answer.capitalize(),
                        "category": category,
                    }
                )
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", MME_COLUMNS, rows)


def _both_answers(scene: Scene, asked: Question, items: Items) -> list[Question]:
    """A question answered yes and one answered no, in random order."""
    if asked.claims:
        pair = list(yes_no(asked, items.rng))
    else:
        others = [q for q in scene.questions(items.rng) if q.topic == asked.topic and q.answer != asked.answer]
        pair = [asked, items.rng.choice(others)]
    items.rng.shuffle(pair)
    return pair


MMBENCH_TOPICS: dict[str, tuple[str, str, str]] = {  # topic: kind, category, l2-category
    "colour": ("objects", "attribute_recognition", "finegrained_perception (instance-level)"),
    "count": ("objects", "object_localization", "finegrained_perception (instance-level)"),
    "position": ("objects", "object_localization", "finegrained_perception (instance-level)"),
    "direction": ("objects", "spatial_relationship", "finegrained_perception (cross-instance)"),
    "size": ("objects", "attribute_comparison", "finegrained_perception (cross-instance)"),
    "reading": ("sign", "ocr", "finegrained_perception (instance-level)"),
    "person": ("portrait", "celebrity_recognition", "finegrained_perception (instance-level)"),
    "mood": ("portrait", "image_emotion", "coarse_perception"),
    "picture": ("any", "image_scene", "coarse_perception"),
    "value": ("chart", "structuralized_imagetext_understanding", "logic_reasoning"),
}
MMBENCH_COLUMNS = {
    "index": "int64",
    **dict.fromkeys(("question", "hint", "A", "B", "C", "D", "answer", "category"), "string"),
    "image": IMAGE,
    **dict.fromkeys(("source", "l2-category", "comment", "split"), "string"),
}
ROTATION = 1_000_000


def write_mmbench(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/MMBench_EN`: each question once for every rotation of its options, at index + k * 1,000,000."""
    groups = max(len(MMBENCH_TOPICS), count * 10 // 36)  # 36 rows for every 10 topics: two of them have 2 options
    quotas = by_kind(groups, MMBENCH_TOPICS)
    rows = [
        row
        for base, (scene, question) in enumerate(items.mixed(quotas))
        for row in _rotated(base, scene, question, items)
    ]
    rows.sort(key=lambda row: row["index"])
    write_parquet(folder / "data" / "dev-00000-of-00001.parquet", MMBENCH_COLUMNS, rows)


def _rotated(base: int, scene: Scene, question: Question, items: Items) -> Iterator[dict[str, Any]]:
    _, category, group = MMBENCH_TOPICS[question.topic]
    options, position = items.options(question)
    picture = image(items.jpeg(scene, base), f"{base}.jpg")
    for k in range(len(options)):
        turned = options[k:] + options[:k]
        columns = {letter(i): turned[i] if i < len(turned) else "nan" for i in range(4)}
        yield {
            "index": base + k * ROTATION,
            "question": question.text,
            "hint": HINTS.get(question.topic, "nan"),
            **columns,
            "answer": letter((position - k) % len(options)),
            "category": category,
            "image": picture,
            "source": "world",
            "l2-category": group,
            "comment": "nan",
            "split": "dev",
        }


SEED_TYPES: dict[str, tuple[str, int]] = {  # topic: kind of picture, question_type_id
    "picture": ("any", 1),  # scene understanding
    "shape": ("objects", 2),  # instance identity
    "colour": ("objects", 3),  # instance attributes
    "position": ("objects", 4),  # instance location
    "count": ("objects", 5),  # instance counting
    "direction": ("objects", 6),  # spatial relation
    "neighbour": ("objects", 7),  # instance interaction
    "sum": ("chart", 8),  # visual reasoning
    "reading": ("sign", 9),  # text recognition
}
SEED_COLUMNS = {
    **dict.fromkeys(("answer", "choice_a", "choice_b", "choice_c", "choice_d", "data_id", "data_type"), "string"),
    "question": "string",
    "question_id": "string",
    "question_type_id": "int16",
    "image": [IMAGE],
    "segment": ["int64"],
}
VIDEO_TYPE, VIDEO_FRAMES = 10, 8


def write_seedbench(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/SEED-Bench`: four options; a few video rows too, which the image benchmark leaves out."""
    quotas = by_kind(count, SEED_TYPES)
    rows = [_seed_row(n, scene, question, items, frames=1) for n, (scene, question) in enumerate(items.mixed(quotas))]
    videos = items.mixed({"objects": {"colour": max(1, count // 20)}})
    rows += [_seed_row(len(rows) + n, *video, items, frames=VIDEO_FRAMES) for n, video in enumerate(videos)]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", SEED_COLUMNS, rows)


def _seed_row(number: int, scene: Scene, question: Question, items: Items, *, frames: int) -> dict[str, Any]:
    options, position = items.options(question)
    is_video = frames > 1
    return {
        "answer": letter(position),
        **{f"choice_{letter(k).lower()}": option for k, option in enumerate(options)},
        "data_id": f"{number:06d}",
        "data_type": "video" if is_video else "image",
        "question": question.text,
        "question_id": f"v{number}" if is_video else str(number),
        "question_type_id": VIDEO_TYPE if is_video else SEED_TYPES[question.topic][1],
        "image": [image(items.jpeg(scene, number, k), f"{number:06d}_{k}.jpg") for k in range(frames)],
        "segment": [0, frames] if is_video else None,
    }


GQA_TOPICS: dict[str, tuple[str, str, str]] = {  # topic: structural, semantic, detailed type
    "existence": ("verify", "obj", "exist"),
    "colour": ("query", "attr", "color"),
    "shape": ("query", "cat", "categoryThat"),
    "size": ("compare", "attr", "twoDifferent"),
    "relation": ("choose", "rel", "chooseRel"),
    "position": ("query", "global", "positionQuery"),
    "neighbour": ("query", "rel", "relO"),
}
GQA_TYPES = {"structural": "string", "semantic": "string", "detailed": "string"}
GQA_COLUMNS = {
    **dict.fromkeys(("id", "imageId", "question", "answer", "fullAnswer"), "string"),
    "isBalanced": "bool",
    "groups": {"global": "string", "local": "string"},
    "entailed": "string",
    "equivalent": "string",
    "types": GQA_TYPES,
    "annotations": {"question": "string"},
    "semantic": [{"operation": "string", "argument": "string", "dependencies": ["int32"]}],
    "semanticStr": "string",
}


def write_gqa(folder: Path, items: Items, count: int) -> None:
    """`lmms-lab/GQA`: one table of images, one of open questions, joined on the image's id."""
    images, rows = [], []
    for n, (scene, questions) in enumerate(items.deal(sample_objects, shares(count, GQA_TOPICS), per_scene=4)):
        image_id = f"n{n:06d}"
        images.append({"id": image_id, "image": image(items.jpeg(scene, n), f"{image_id}.jpg")})
        rows += [_gqa_row(f"20{n:05d}{k}", image_id, question) for k, question in enumerate(questions)]
    name = "testdev-00000-of-00001.parquet"
    write_parquet(folder / "testdev_balanced_images" / name, {"id": "string", "image": IMAGE}, images)
    write_parquet(folder / "testdev_balanced_instructions" / name, GQA_COLUMNS, items.shuffled(rows))


def _gqa_row(question_id: str, image_id: str, question: Question) -> dict[str, Any]:
    structural, semantic, detailed = GQA_TOPICS[question.topic]
    return {
        "id": question_id,
        "imageId": image_id,
        "question": question.text,
        "answer": question.answer,
        "fullAnswer": f"The answer is {question.answer}.",
        "isBalanced": True,
        "groups": {"global": question.topic, "local": f"{question.topic}-{question.text}"},
        "entailed": f"['{question_id}']",
        "equivalent": f"['{question_id}']",
        "types": {"structural": structural, "semantic": semantic, "detailed": detailed},
        "annotations": {"question": "[]"},
        "semantic": [{"operation": "query", "argument": question.topic, "dependencies": []}],
        "semanticStr": f"query: {question.topic}",
    }
