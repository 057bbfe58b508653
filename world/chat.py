"""Conversations about pictures as LLaVA and Bunny keep them: one JSON array beside a folder of images."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from world import prompts
from world.deck import Balance
from world.facts import facts
from world.files import json_text, write_bytes, write_text
from world.formats import Turn, turn
from world.kinds.chart import Chart
from world.kinds.document import Document
from world.kinds.objects import Objects, sample_objects
from world.kinds.room import Room
from world.kinds.sign import Sign
from world.lexicon import a
from world.pairs import any_scene
from world.picture import Pen
from world.scene import Scene, sample, stream

IMAGE = "<image>"
INSTRUCTIONS = (
    "Describe the picture in a few words.",
    "What can be seen here? Keep it short.",
    "Give a short caption for this picture.",
    "Say briefly what the picture shows.",
    "Write one line about the image.",
)
LLAVA_FOLDERS: dict[type, str] = {
    Objects: "coco/train2017",
    Room: "gqa/images",
    Sign: "textvqa/train_images",
    Document: "ocr_vqa/images",
    Chart: "vg/VG_100K_2",
}
Sample = dict[str, Any]


@dataclass(frozen=True)
class Talk:
    """What conversations are drawn from.

    Attributes:
        seed: Of the world.
        mix: Share of each kind of picture.
        pen: Draws the pictures.
        turns: Questions in a conversation.
        text_only: Share of conversations without a picture.
        multi_image: Share of conversations about two pictures.
        per_folder: Images in one numbered folder.
    """

    seed: int
    mix: Mapping[str, float]
    pen: Pen
    turns: int
    text_only: float
    multi_image: float
    per_folder: int


def write_llava_pretrain(folder: Path, *, count: int, talk: Talk) -> None:
    """LLaVA-Pretrain: an instruction, `<image>` before or after it, and a caption; numbered image folders."""
    samples = []
    for index in range(count):
        rng = stream(talk.seed, "llava_pretrain", index)
        scene = any_scene(talk.mix, "train", rng)
        caption = scene.describe(rng) if rng.random() < 0.5 else scene.caption(rng)
        name = f"{index // talk.per_folder:05d}/{index:09d}.jpg"
        write_bytes(folder / "images" / name, talk.pen.jpeg(scene, rng))
        asked = _place_images(rng.choice(INSTRUCTIONS), 1, rng)
        samples.append({"id": f"{index:09d}", "image": name, "conversations": _conversation([(asked, caption)])})
    write_text(folder / "blip_laion_cc_sbu_558k.json", json_text(samples))


def write_mix665k(folder: Path, *, count: int, talk: Talk) -> None:
    """LLaVA's finetuning mix: several turns in the formats of the benchmarks, in the image folders of its sources."""
    samples = _mixed("mix665k", folder / "images", count, talk, _llava_path)
    write_text(folder / "llava_v1_5_mix665k.json", json_text(samples))


def write_bunny(folder: Path, *, count: int, talk: Talk) -> None:
    """The same for Bunny, in its own image folders."""
    samples = _mixed("bunny", folder / "images", count, talk, _bunny_path)
    write_text(folder / "bunny_695k.json", json_text(samples))


def _llava_path(scene: Scene, number: int) -> str:
    for kind, folder in LLAVA_FOLDERS.items():
        if isinstance(scene, kind):
            return f"{folder}/{number:012d}.jpg"
    return f"vg/VG_100K/{number}.jpg"


def _bunny_path(scene: Scene, number: int) -> str:
    return f"{'coco_2017' if isinstance(scene, Objects) else 'visual_genome'}/{number:012d}.jpg"


def _mixed(purpose: str, images: Path, count: int, talk: Talk, path: Callable[[Scene, int], str]) -> list[Sample]:
    balance = Balance()
    samples: list[Sample] = []
    for index in range(count):
        rng = stream(talk.seed, purpose, index)
        draw = rng.random()
        if draw < talk.text_only:
            turns = [turn(None, fact, rng) for fact in rng.sample(facts(), talk.turns)]
            samples.append({"id": f"{purpose}_{index}", "model": "", "conversations": _conversation(turns)})
            continue
        if draw < talk.text_only + talk.multi_image:
            scenes, turns = about_two(rng)
        else:
            scenes = [any_scene(talk.mix, "train", rng)]
            turns = about_one(scenes[0], talk.turns, balance, rng)
            turns.append((rng.choice(INSTRUCTIONS), scenes[0].describe(rng)))  # last, where it gives no answer away
        names = [path(scene, index * 10 + k) for k, scene in enumerate(scenes)]
        for scene, name in zip(scenes, names, strict=True):
            write_bytes(images / name, talk.pen.jpeg(scene, rng))
        turns[0] = _place_images(turns[0][0], len(scenes), rng), turns[0][1]
        samples.append(
            {
                "id": f"{purpose}_{index}",
                "image": names[0] if len(names) == 1 else names,
                "conversations": _conversation(turns),
            }
        )
    return samples


def about_one(scene: Scene, count: int, balance: Balance, rng: random.Random) -> list[Turn]:
    """Up to `count` questions about `scene`, those first whose answers have been rarest so far, in random order."""
    questions = list(scene.questions(rng))
    rng.shuffle(questions)
    chosen = sorted(questions, key=balance.surplus)[:count]
    for question in chosen:
        balance.add(question)
    rng.shuffle(chosen)
    return [turn(scene, question, rng) for question in chosen]


def about_two(rng: random.Random) -> tuple[list[Scene], list[Turn]]:
    """Two pictures, one of which shows a shape that the other lacks, and what is asked about them."""
    one, other = (sample(sample_objects, "train", rng) for _ in range(2))
    shape = rng.choice(one.things).shape
    while any(thing.shape == shape for thing in other.things):
        other = sample(sample_objects, "train", rng)
    is_first = rng.random() < 0.5
    scenes = [one, other] if is_first else [other, one]
    options = prompts.lettered(["the first image", "the second image"])
    which = f"Which image shows {a(shape)}? Options:{options}{prompts.LETTER}"
    turns: list[Turn] = [(which, "A" if is_first else "B")]
    for k in rng.sample((0, 1), 2):
        text = f"How many objects are in the {('first', 'second')[k]} image?{prompts.PHRASE}"
        turns.append((text, str(len(scenes[k].things))))
    return list(scenes), turns


def _place_images(text: str, count: int, rng: random.Random) -> str:
    """`text` with `count` image marks, before or after it."""
    marks = "\n".join([IMAGE] * count)
    return f"{marks}\n{text}" if rng.random() < 0.5 else f"{text}\n{marks}"


def _conversation(turns: list[Turn]) -> list[dict[str, str]]:
    return [{"from": who, "value": value} for pair in turns for who, value in zip(("human", "gpt"), pair, strict=True)]
