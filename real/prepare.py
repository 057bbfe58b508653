"""The real data in the formats that the stages read, all of it below one folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from real import chat, mira, packing, questions, sources, stories

Say = Callable[[str], None]
STORIES = "lm-stories260k"


def prepare(data: Path, out: Path, say: Say) -> None:
    """Write everything below `out`.

    - `flickr8k/pairs`, `flickr8k/pairs_test`: five pairs a photo; held-out photos with their first caption
    - `fashion/pairs`, `fashion/pairs_test`: each photo with its title and its class name; held-out ones with titles
    - `fashion/embeddings`: of the training pairs by MIRA and by OpenAI's CLIP ViT-B/32, and of all photos
    - `fashion/classes_all`, `fashion/classes_held_out`: zero-shot sets over 45 classes
    - `chat`: LLaVA's two files and their images
    - `benchmarks`: ScienceQA, ChartQA and MMBench questions
    - `lm-stories260k`: a language model with its tokenizer
    """
    shutil.rmtree(out, ignore_errors=True)
    say("Flickr8k photos into shards")
    pictures = sorted(sources.captions(data).items())
    held_out = sources.is_held_out(len(pictures))
    train = [p for p, test in zip(pictures, held_out, strict=True) if not test]
    test = [p for p, test in zip(pictures, held_out, strict=True) if test]
    packing.write_pairs(out / "flickr8k" / "pairs", ((f.read_bytes(), "jpg", c) for f, cs in train for c in cs))
    packing.write_pairs(out / "flickr8k" / "pairs_test", ((f.read_bytes(), "jpg", cs[0]) for f, cs in test))
    say("product photos into shards, with MIRA's embeddings of them")
    photos = sources.fashion(data)
    squares = [packing.png(mira.square(Image.open(photo.file))) for photo in photos]
    _fashion_sets(data, out / "fashion", photos, squares)
    _embeddings(data, out / "fashion" / "embeddings", photos)
    say("conversations, benchmark questions, the language model")
    _chat(out / "chat", train, photos, squares)
    questions.write_benchmarks(data, out / "benchmarks")
    stories.write_folder(data, out / STORIES)


def training_texts(photos: list[sources.Photo]) -> list[tuple[int, str]]:
    """(photo, text) of the training pairs in the order of the shards: its title, if any, and its class name.

    A text tower that is trained from nothing must have read the names that it is asked for.
    """
    chosen = np.flatnonzero(~sources.is_held_out(len(photos))).tolist()
    return [(i, text) for i in chosen for text in (photos[i].title, photos[i].label) if text.strip()]


def _fashion_sets(data: Path, out: Path, photos: list[sources.Photo], squares: list[bytes]) -> None:
    held_out = np.flatnonzero(sources.is_held_out(len(photos))).tolist()
    packing.write_pairs(out / "pairs", ((squares[i], "png", text) for i, text in training_texts(photos)))
    titled = [i for i in held_out if photos[i].title.strip()]
    packing.write_pairs(out / "pairs_test", ((squares[i], "png", photos[i].title) for i in titled))
    names = sources.classes(data)
    labels = [names.index(photo.label) for photo in photos]
    every = range(len(photos))
    for folder, chosen in (("classes_all", every), ("classes_held_out", held_out)):
        packing.write_classification(out / folder, names, "{c}", ((squares[i], labels[i]) for i in chosen))


def _embeddings(data: Path, out: Path, photos: list[sources.Photo]) -> None:
    out.mkdir(parents=True)
    weights = mira.load(data / "mira_clip" / "clip.pt")
    image = mira.encode_images(weights, [Image.open(photo.file) for photo in photos]).numpy()
    pairs = training_texts(photos)
    rows = [i for i, _ in pairs]
    np.save(out / "mira_all.npy", image)
    np.save(out / "mira_classes.npy", mira.encode_texts(weights, sources.classes(data)).numpy())
    np.save(out / "mira_image.npy", image[rows])
    np.save(out / "mira_text.npy", mira.encode_texts(weights, [text for _, text in pairs]).numpy())
    clip = np.load(data / "fashion2k_clipb32" / "clip_vit_b32_image_embeddings.npy", allow_pickle=False)
    np.save(out / "clip_b32_image.npy", clip[rows])


def _chat(out: Path, pictures: list[tuple[Path, list[str]]], photos: list[sources.Photo], squares: list[bytes]) -> None:
    images = out / "images"
    for folder in ("flickr8k", "fashion"):
        (images / folder).mkdir(parents=True)
    for file, _ in pictures:
        (images / "flickr8k" / file.name).write_bytes(file.read_bytes())
    for photo, square in zip(photos, squares, strict=True):
        (images / "fashion" / f"{photo.file.stem}.png").write_bytes(square)
    rng = np.random.default_rng(0)
    products = chat.product_samples(photos, [p.label for p in photos], rng)
    test = sources.is_held_out(len(photos))
    learnt = [s for s, held_out in zip(products, test, strict=True) if not held_out]
    asked = [s for s, held_out in zip(products, test, strict=True) if held_out]
    packing.write_json(out / "pretrain.json", chat.caption_samples(pictures))
    packing.write_json(out / "finetune.json", chat.description_samples(pictures) + learnt + asked)


def is_done(out: Path, key: str) -> bool:
    """Whether `prepare` has written `out` from the same inputs."""
    mark = out / "prepared.json"
    return mark.is_file() and json.loads(mark.read_text()) == {"key": key}


def mark_done(out: Path, key: str) -> None:
    """Remember the inputs of what stands in `out`."""
    packing.write_json(out / "prepared.json", {"key": key})
