"""A conversation with a VLM at the terminal: turns, pictures in view, and answers that a terminal shows, not obeys."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kd_vlm.assembly import Vlm
from kd_vlm.generation import Gallery, Message, Prompt, stream, user_message
from kd_vlm.pictures import decode_image

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x1b\\|\x07)|[ -/]+[0-~]|(?![\[\]PX^_])[0-~])"  # CSI; OSC, DCS; others
    r"|\x9b[0-?]*[ -/]*[@-~]",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LONGEST = 64  # characters of an unfinished sequence that are waited for


@dataclass
class Conversation:
    """Turns so far and their pictures. A picture is shown with the next question and stays in view."""

    vlm: Vlm
    max_new_tokens: int = 256
    messages: list[Message] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._gallery = Gallery(self.vlm)

    def show(self, path: Path) -> None:
        """Put the picture at `path` before the next question.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it does not decode or is too large.
        """
        if not path.is_file():
            raise FileNotFoundError(f"Expected a picture at {path}, found none.")
        name = str(path.resolve())
        self._gallery.add({name: decode_image(path)})
        self.waiting.append(name)

    def ask(self, question: str) -> Iterator[str]:
        """The answer in pieces, as it is decoded; afterwards it is part of the conversation."""
        self.messages.append(user_message(question, len(self.waiting)))
        self.images += self.waiting
        n_new, self.waiting = len(self.waiting), []
        said: list[str] = []
        try:
            prompt = Prompt(tuple(self.messages), tuple(self.images))
            for piece in shown(stream(self.vlm, prompt, self._gallery, max_new_tokens=self.max_new_tokens)):
                said.append(piece)
                yield piece
        except BaseException:
            self.messages.pop()
            self.images = self.images[: len(self.images) - n_new]
            raise
        self.messages.append({"role": "assistant", "content": "".join(said).strip()})

    def forget(self) -> None:
        """Begin anew; pictures that were encoded stay encoded."""
        self.messages.clear()
        self.images.clear()
        self.waiting.clear()


def shown(pieces: Iterable[str]) -> Iterator[str]:
    """Text that a terminal shows and does not obey: escape sequences and control characters are taken out.

    A sequence may be cut anywhere between two pieces; its beginning is held back until it is whole.
    """
    held = ""
    for piece in pieces:
        text = _SEQUENCE.sub("", held + piece)
        begun = re.search("[\x1b\x9b]", text)
        held = text[begun.start() :] if begun and len(text) - begun.start() < _LONGEST else ""
        if ready := _CONTROL.sub("", text[: len(text) - len(held)]):
            yield ready
    if rest := _CONTROL.sub("", held):
        yield rest
