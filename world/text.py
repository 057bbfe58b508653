"""Text for a small language model: captions, facts and dialogues in which a description stands for the picture."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from world.chat import about_one
from world.deck import Balance
from world.facts import facts
from world.files import json_text, write_text
from world.formats import Turn, turn
from world.pairs import any_scene
from world.scene import Question, stream

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
END = "<|endoftext|>"


def dialogue(turns: list[Turn]) -> str:
    """`turns` in the template that TinyLLaVA and Bunny use for base models, to the last letter."""
    return SYSTEM + " " + "".join(f"USER: {asked} ASSISTANT: {answer}{END}" for asked, answer in turns)


def write_corpus(folder: Path, *, lines: int, seed: int, mix: Mapping[str, float]) -> None:
    """`corpus.jsonl`: one text a line, all about contents of the train split."""
    texts = (json_text({"text": text}) + "\n" for text in _texts(lines, seed, mix))
    write_text(folder / "corpus.jsonl", "".join(texts))


def _texts(lines: int, seed: int, mix: Mapping[str, float]) -> Iterator[str]:
    balance, known = Balance(), facts()
    for index in range(lines):
        yield _text(stream(seed, "text", index), balance, known, mix)


def _text(rng: random.Random, balance: Balance, known: list[Question], mix: Mapping[str, float]) -> str:
    draw = rng.random()
    if draw < 0.08:
        fact = rng.choice(known)
        return dialogue([turn(None, fact, rng)]) if rng.random() < 0.5 else _in_words(fact)
    scene = any_scene(mix, "train", rng)
    if draw < 0.18:
        return scene.caption(rng) + END
    description = scene.describe(rng)
    if draw < 0.25:
        return f"{description}. {_in_words(rng.choice(list(scene.questions(rng))))}"
    turns = about_one(scene, rng.randint(1, 3), balance, rng)
    turns[0] = f"Picture: {description}.\n{turns[0][0]}", turns[0][1]
    return dialogue(turns)


def _in_words(question: Question) -> str:
    return f"{question.text} The answer is {question.answer}.{END}"
