"""From a request to tokens: the checkpoint's chat template, and where images stand in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_evalsuite.items import DataError
from kd_evalsuite.models.base import Request


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt in two pieces: up to its last image, and behind it.

    Attributes:
        prefix: Token ids with one image token for each feature; empty where there is no image.
        text: The other token ids.
        images: Digests of the images, in order.
        key: Equal for equal prefixes with equal images.
    """

    prefix: tuple[int, ...]
    text: tuple[int, ...]
    images: tuple[str, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        return self.prefix, self.images


class Chat:
    """Writes requests as a processor's chat template does.

    Args:
        processor: A transformers processor with tokenizer and chat template.
        folder: Where it came from, for errors.

    Raises:
        DataError: If it has no chat template.
    """

    def __init__(self, processor: Any, folder: Path) -> None:
        if not getattr(processor, "chat_template", None):
            raise DataError(f"{folder}: expected a processor with a chat template, found none.")
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"
        self.image_token = str(getattr(processor, "image_token", "") or "")
        self.image_id = self.tokenizer.convert_tokens_to_ids(self.image_token) if self.image_token else -1
        self._continuations: dict[str, list[int]] = {}

    def ends(self, named: int | Sequence[int] | None) -> list[int]:
        """The tokens that end a reply: those that the checkpoint names, else the tokenizer's.

        Raises:
            DataError: If there is none.
        """
        found = self.tokenizer.eos_token_id if named is None else named
        if found is None:
            raise DataError("The checkpoint names no end-of-text token, so no reply would end.")
        return [found] if isinstance(found, int) else list(found)

    def rendered(self, request: Request, reply: str | None = None) -> str:
        """The chat as the template writes it, with one image token an image; a question cannot smuggle in another."""
        text = request.text.replace(self.image_token, "") if self.image_token else request.text
        content = [{"type": "image"}] * len(request.images) + [{"type": "text", "text": text}]
        chat: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if reply is not None:
            chat.append({"role": "assistant", "content": [{"type": "text", "text": reply}]})
        return str(self.processor.apply_chat_template(chat, add_generation_prompt=reply is None, tokenize=False))

    def adds_special(self, text: str) -> bool:
        """Whether the tokenizer should add its special tokens: not where the template already wrote the first."""
        bos = self.tokenizer.bos_token
        return not (bos and text.startswith(bos))

    def tokens(self, requests: Sequence[Request], lengths: Mapping[str, int]) -> list[Tokens]:
        """The tokens of each request; `lengths` says how many features an image has, by its digest.

        Raises:
            DataError: If the template wrote another number of image tokens than there are images.
        """
        texts = [self.rendered(r) for r in requests]
        whole = self.tokenizer(texts, add_special_tokens=self.adds_special(texts[0]))["input_ids"]
        return [self._split(ids, request, lengths) for ids, request in zip(whole, requests, strict=True)]

    def _split(self, ids: Sequence[int], request: Request, lengths: Mapping[str, int]) -> Tokens:
        places = [k for k, token in enumerate(ids) if token == self.image_id]
        if len(places) != len(request.images):
            raise DataError(f"The chat template wrote {len(places)} image tokens for {len(request.images)} images.")
        prefix: list[int] = []
        begin = 0
        for place, image in zip(places, request.images, strict=True):
            prefix += [*ids[begin:place], *[self.image_id] * lengths[image.sha256]]
            begin = place + 1
        return Tokens(tuple(prefix), tuple(ids[begin:]), tuple(image.sha256 for image in request.images))

    def continuation(self, request: Request, option: str) -> list[int]:
        """The tokens of `option` as a reply, with the space or line that the template puts before a reply."""
        if option not in self._continuations:
            prompt, whole = self.rendered(request), self.rendered(request, option)
            written = whole[len(prompt) :] if whole.startswith(prompt) else option
            end = written.find(option) + len(option)
            special = self.adds_special(prompt)
            before, after = self.tokenizer([prompt, prompt + written[:end]], add_special_tokens=special)["input_ids"]
            together = after[: len(before)] == before
            alone = self.tokenizer(option, add_special_tokens=False)["input_ids"]
            self._continuations[option] = list(after[len(before) :] if together else alone)
        return self._continuations[option]
