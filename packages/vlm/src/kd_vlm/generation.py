"""Greedy decoding: many prompts at once, each picture through the tower once, and word by word for a reader."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import TextIteratorStreamer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from kd_vlm.assembly import Vlm
from kd_vlm.connectors import projected
from kd_vlm.loading import tower_tokens

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A conversation that waits for an answer.

    Attributes:
        messages: As chat templates take them; the last is the user's.
        images: Names of its pictures, in the order of their places.
    """

    messages: Sequence[Message]
    images: tuple[str, ...] = ()


def ask(question: str, images: Sequence[str] = ()) -> Prompt:
    """One question about some pictures."""
    return Prompt([user_message(question, len(images))], tuple(images))


def user_message(question: str, n_images: int) -> Message:
    return {"role": "user", "content": [*[{"type": "image"}] * n_images, {"type": "text", "text": question}]}


class Gallery:
    """What the language model sees of each picture, computed once, in batches, and kept."""

    def __init__(self, vlm: Vlm, batch_size: int = 32) -> None:
        self._vlm, self._batch_size = vlm, batch_size
        self._seen: dict[str, Tensor] = {}
        self.n_encoded = 0  # pictures that have gone through the tower

    def add(self, pictures: Mapping[str, Image.Image]) -> None:
        """Encode those of `pictures` that are new by name."""
        new = [name for name in pictures if name not in self._seen]
        for start in range(0, len(new), self._batch_size):
            names = new[start : start + self._batch_size]
            image_processor: Any = self._vlm.processor.image_processor  # type: ignore[attr-defined]
            pixels = image_processor([pictures[name].convert("RGB") for name in names], return_tensors="pt")
            features = tower_tokens(self._vlm.model, pixels["pixel_values"].to(self._vlm.model.device))
            with torch.no_grad():
                tokens: Any = projected(self._vlm.model, features)["image"].pooler_output
            self._seen.update(zip(names, tokens, strict=True))
            self.n_encoded += len(names)

    def of(self, names: Sequence[str]) -> dict[str, Any]:
        """The argument for the stock model: the tokens of these pictures in this order."""
        if not names:
            return {}
        tokens: Any = [self._seen[name] for name in names]
        if self._vlm.model.config.model_type != "llava":
            tokens = torch.stack(tokens)
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=tokens)}}


def generate(
    vlm: Vlm,
    prompts: Sequence[Prompt],
    gallery: Gallery,
    *,
    max_new_tokens: int = 64,
    batch_size: int = 16,
) -> list[tuple[int, ...]]:
    """The answers' tokens, greedy, without the token that ends them.

    Prompts of like length are run together, padded on the left. In float32 each answer is what the prompt gives alone.

    Args:
        vlm: The model.
        prompts: In any order; the answers come in the same.
        gallery: Holds their pictures.
        max_new_tokens: Longest answer.
        batch_size: Prompts in one batch.
    """
    rows = [prompt_ids(vlm, prompt) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    answers: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        inputs = _padded([rows[i] for i in part], vlm.processor.tokenizer.pad_token_id, vlm.model.device)
        pictures = gallery.of([name for i in part for name in prompts[i].images])
        with torch.no_grad():
            out = vlm.model.generate(**inputs, **pictures, max_new_tokens=max_new_tokens, do_sample=False)
        for i, row in zip(part, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            answers[i] = _until_end(row, _ends(vlm))
    return [answers[i] for i in range(len(rows))]


def prompt_ids(vlm: Vlm, prompt: Prompt) -> list[int]:
    """The prompt's tokens, a picture's place taken by as many image tokens as it has visual ones.

    Raises:
        ValueError: If the number of pictures is not the number of their places.
    """
    processor: Any = vlm.processor
    text = processor.apply_chat_template(list(prompt.messages), add_generation_prompt=True)
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    if ids.count(vlm.image_id) != len(prompt.images):
        raise ValueError(f"{len(prompt.images)} pictures, but {ids.count(vlm.image_id)} places for them in the prompt.")
    return [t for i in ids for t in ([i] * vlm.tokens_per_image if i == vlm.image_id else [i])]


def stream(vlm: Vlm, prompt: Prompt, gallery: Gallery, *, max_new_tokens: int = 256) -> Iterator[str]:
    """The answer to `prompt`, piece by piece as it is decoded."""
    inputs = _padded([prompt_ids(vlm, prompt)], vlm.processor.tokenizer.pad_token_id, vlm.model.device)
    pieces = TextIteratorStreamer(vlm.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    how: dict[str, Any] = {**gallery.of(prompt.images), "max_new_tokens": max_new_tokens}
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with torch.no_grad():
                vlm.model.generate(**inputs, **how, do_sample=False, streamer=pieces)
        except BaseException as error:
            failed.append(error)
            pieces.end()

    thread = Thread(target=run, daemon=True)
    thread.start()
    yield from pieces
    thread.join()
    if failed:
        raise failed[0]


def _padded(rows: Sequence[Sequence[int]], pad_id: int, device: Any) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}


def _ends(vlm: Vlm) -> set[int]:
    ends = vlm.model.generation_config.eos_token_id
    return {ends} if isinstance(ends, int) else set(ends or ())


def _until_end(row: Sequence[int], ends: set[int]) -> tuple[int, ...]:
    n = next((i for i, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:n])
