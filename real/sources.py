"""The real data as their own files have them. Read only; each folder's SOURCE.txt says what it is."""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT_EVERY = 5  # every fifth photo is held out
CLASS_OF = {"eyes": "eyelash", "lips": "lipstick", "nails": "nail polish"}  # how the 45 class names call these


def folder() -> Path:
    """Where the real data are: `KD_REAL_DATA`, or `shared/data` beside the repository."""
    return Path(os.environ.get("KD_REAL_DATA") or ROOT.parent / "shared" / "data")


NEEDED = (
    "flickr8k_1k",
    "fashion2k_clipb32",
    "mira_clip",
    "stories260K",
    "scienceqa_sample",
    "chartqa_sample",
    "mmbench_samples",
)


def missing(data: Path) -> list[str]:
    """Which of the needed folders are not there."""
    return [name for name in NEEDED if not (data / name).is_dir()]


@dataclass(frozen=True)
class Photo:
    """One product photo: its file, title, class (one of the 45), subCategory as in the table, and base colour."""

    file: Path
    title: str
    label: str
    subcategory: str
    colour: str


def fashion(data: Path) -> list[Photo]:
    """The 2000 product photos, in the order of their published embeddings."""
    here = data / "fashion2k_clipb32"
    with (here / "styles.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    photos = []
    for name in (here / "image_order.txt").read_text().split():
        row = rows[name.removesuffix(".jpg")]
        label = row["subCategory"].lower()
        photos.append(
            Photo(
                here / "images" / name,
                row["productDisplayName"].strip(),
                CLASS_OF.get(label, label),
                row["subCategory"],
                row["baseColour"],
            )
        )
    return photos


def classes(data: Path) -> list[str]:
    """The 45 class names of the zero-shot set, in the order of their published embeddings."""
    return (data / "mira_clip" / "classes_45.txt").read_text().split("\n")[:45]


def is_held_out(n: int) -> np.ndarray:
    """A mask (n,) of the photos that no student is trained on."""
    return np.arange(n) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def captions(data: Path) -> dict[Path, list[str]]:
    """The captions of each Flickr8k photo, five each."""
    here = data / "flickr8k_1k"
    found: dict[Path, list[str]] = {}
    with (here / "captions.txt").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(here / "images" / row["image"], []).append(row["caption"].removesuffix(" .").strip())
    return found


def questions(data: Path, name: str) -> list[dict[str, Any]]:
    """The lines of `<name>/questions.jsonl`."""
    text = (data / name / "questions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]
