"""Conversation files of the LLaVA family: LLaVA-Pretrain, mix665k, Bunny. One JSON array, or one object a line."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from kd_vlm.templates import IMAGE, Encoded, Turn

MAX_PIXELS = 64_000_000  # a larger header is refused before anything is decoded


@dataclass(frozen=True)
class Sample:
    """One conversation. `images` are paths relative to the image folder, one for each `<image>` in the questions."""

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]


def read_conversations(path: Path) -> list[Sample]:
    """All samples of `path`, in file order.

    A first message that is not the human's is dropped, as the originals do. A sample without `image` is text only;
    `image` may also be a list, with as many `<image>` in the questions.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a sample has another form; the message names the sample.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected conversations (a .json array or .jsonl) at {path}, found none.")
    return [_sample(row, f"{path}: sample {i}") for i, row in enumerate(_rows(path))]


def _rows(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".jsonl":
            yield from (json.loads(line) for line in text.splitlines() if line.strip())
        else:
            yield from json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def _sample(row: Any, where: str) -> Sample:
    try:
        image = row.get("image") or ()
        images = (image,) if isinstance(image, str) else tuple(map(str, image))
        messages = [(m["from"], m["value"]) for m in row["conversations"]]
        name = str(row.get("id", ""))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f'{where}: expected {{"id", "image", "conversations": [{{"from", "value"}}]}}: {error!r}'
        ) from None
    if messages and messages[0][0] != "human":
        messages = messages[1:]
    speakers = [speaker for speaker, _ in messages]
    if not messages or speakers != ["human", "gpt"] * (len(messages) // 2):
        raise ValueError(
            f"{where} ({name}): expected human and gpt in turn, got {', '.join(speakers) or 'no message'}."
        )
    turns = tuple(Turn(q, a) for (_, q), (_, a) in zip(messages[::2], messages[1::2], strict=True))
    n_places = sum(turn.question.count(IMAGE) for turn in turns)
    if n_places != len(images):
        raise ValueError(f"{where} ({name}): {len(images)} images but {n_places} times {IMAGE} in the questions.")
    return Sample(name, images, turns)


def distinct_images(samples: Iterable[Sample]) -> list[str]:
    """Every image path of `samples` once, in order of first use."""
    return list(dict.fromkeys(image for sample in samples for image in sample.images))


def open_image(folder: Path, name: str) -> Image.Image:
    """The picture `name` below `folder`, decoded to RGB.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If the path leaves the folder, the header promises too many pixels, or it does not decode.
    """
    return decode_image(image_path(folder, name))


def image_path(folder: Path, name: str) -> Path:
    """The path of image `name`, which must lie inside `folder`.

    Raises:
        ValueError: If it does not.
        FileNotFoundError: If nothing is there.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"Image {name!r} lies outside its folder {folder}.")
    if not path.is_file():
        raise FileNotFoundError(f"Expected image {name!r} in {folder}, found none.")
    return path


def decode_image(path: Path) -> Image.Image:
    """The picture at `path` in RGB; its header is checked for size before it is decoded.

    Raises:
        ValueError: If it is too large or not a picture.
    """
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(
                    f"{path}: {picture.width} x {picture.height} pixels, at most {MAX_PIXELS} are accepted."
                )
            return picture.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a picture that decodes: {error}") from None


def check_supervision(samples: Sequence[Sample], encoded: Sequence[Encoded], *, least_share: float) -> float:
    """The share of tokens that are supervised, after making sure that there is something to learn everywhere.

    A mask that covers every label gives "loss 0" and a model that has learnt nothing, the most frequent complaint
    about every framework of this kind; so it stops here.

    Args:
        samples: The samples, for their names.
        encoded: The same samples, tokenised.
        least_share: The lowest share over all tokens that is accepted.

    Raises:
        ValueError: If a sample has no supervised token, or the share is below `least_share`.
    """
    empty = [sample.id for sample, e in zip(samples, encoded, strict=True) if e.n_supervised == 0]
    if empty:
        raise ValueError(
            f"{len(empty)} of {len(encoded)} samples have no supervised token (the first: {', '.join(empty[:5])}). "
            "Check template, tokenizer and answers."
        )
    n_tokens = sum(len(e.ids) for e in encoded)
    share = sum(e.n_supervised for e in encoded) / max(n_tokens, 1)
    if share < least_share:
        raise ValueError(
            f"Only {share:.2%} of {n_tokens} tokens are supervised, expected at least {least_share:.2%}. "
            "Check template and tokenizer, or lower least_supervised_share."
        )
    return share
