"""The benchmarks read back from their files, in one shape for the tests."""

import ast
import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


@dataclass(frozen=True)
class Item:
    """A question as a reader without the picture sees it, with the images that he does not see."""

    question: str
    answer: str  # the text of the right option where there are options
    options: tuple[str, ...] | None
    images: tuple[bytes, ...]


def tables(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def rows(folder: Path, under: str = "") -> list[dict[str, Any]]:
    (path,) = tables(folder / under)
    return pq.read_table(path).to_pylist()


def items(root: Path, task: str) -> list[Item]:
    return list(READERS[task](root / task))


def _index(letter: str) -> int:
    return "ABCDEFGH".index(letter)


def _choice(question: str, options: list[str], index: int, *images: bytes) -> Item:
    return Item(question, options[index], tuple(options), images)


def _mme(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        question = r["question"].removesuffix(" Please answer yes or no.")
        yield Item(question, r["answer"].lower(), None, (r["image"]["bytes"],))


def _mmbench(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        options = [r[x] for x in "ABCD" if r[x] != "nan"]
        yield _choice(r["question"], options, _index(r["answer"]), r["image"]["bytes"])


def _seed(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        options = [r[f"choice_{x}"] for x in "abcd"]
        yield _choice(r["question"], options, _index(r["answer"]), *(image["bytes"] for image in r["image"]))


def _gqa(folder: Path) -> Iterator[Item]:
    images = {r["id"]: r["image"]["bytes"] for r in rows(folder, "testdev_balanced_images")}
    for r in rows(folder, "testdev_balanced_instructions"):
        yield Item(r["question"], r["answer"], None, (images[r["imageId"]],))


def _scienceqa(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        images = (r["image"]["bytes"],) if r["image"] else ()
        yield _choice(r["question"], r["choices"], r["answer"], *images)


def _mmmu(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        images = tuple(r[f"image_{k}"]["bytes"] for k in range(1, 8) if r[f"image_{k}"])
        question = re.sub(r"<image \d> ", "", r["question"])
        if r["question_type"] == "multiple-choice":
            yield _choice(question, ast.literal_eval(r["options"]), _index(r["answer"]), *images)
        else:
            yield Item(question, r["answer"], None, images)


def _mathvista(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        options = tuple(r["choices"]) if r["choices"] else None
        yield Item(r["question"], r["answer"], options, (r["decoded_image"]["bytes"],))


def _ai2d(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        yield _choice(r["question"], r["options"], int(r["answer"]), r["image"]["bytes"])


def _chartqa(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        yield Item(r["question"], r["answer"].lower(), None, (r["image"]["bytes"],))


def _ocrbench(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        yield Item(r["question"], r["answer"][0], None, (r["image"]["bytes"],))


def _textvqa(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        answer = max(set(r["answers"]), key=r["answers"].count)
        yield Item(r["question"], answer, None, (r["image"]["bytes"],))


def _docvqa(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        yield Item(r["question"], r["answers"][-1], None, (r["image"]["bytes"],))


def _mmvp(folder: Path) -> Iterator[Item]:
    with (folder / "Questions.csv").open(newline="") as file:
        for r in csv.DictReader(file):
            options = re.split(r"\(a\) | \(b\) ", r["Options"])[1:]
            image = (folder / "MMVP Images" / f"{r['lndex']}.jpg").read_bytes()
            yield _choice(r["Question"], options, "ab".index(r["Correct Answer"][1]), image)


def _realworldqa(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        question, *lines = r["question"].split("\n")
        options = [line[3:] for line in lines[:-1]]
        if options:
            yield _choice(question, options, _index(r["answer"]), r["image"]["bytes"])
        else:
            yield Item(question, r["answer"].lower(), None, (r["image"]["bytes"],))


def _cvbench(folder: Path) -> Iterator[Item]:
    for r in rows(folder):
        yield _choice(r["question"], r["choices"], _index(r["answer"][1]), r["image"]["bytes"])


READERS: dict[str, Callable[[Path], Iterator[Item]]] = {
    "mme_perception": _mme,
    "mmbench_en": _mmbench,
    "seedbench_image": _seed,
    "gqa": _gqa,
    "scienceqa": _scienceqa,
    "mmmu": _mmmu,
    "mathvista": _mathvista,
    "ai2d": _ai2d,
    "chartqa": _chartqa,
    "ocrbench": _ocrbench,
    "textvqa": _textvqa,
    "docvqa": _docvqa,
    "mmvp": _mmvp,
    "realworldqa": _realworldqa,
    "cvbench_2d": _cvbench,
    "cvbench_3d": _cvbench,
}
