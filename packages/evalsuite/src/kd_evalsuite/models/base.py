"""What the predict loop asks of a model, so that any kind of model can answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kd_evalsuite.items import Picture


@dataclass(frozen=True, slots=True)
class Shown:
    """An image to show, with the digest of its bytes under which features of it may be kept."""

    sha256: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Request:
    """A user's turn: images first, then text."""

    text: str
    images: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    tokens: int


class Answerer(Protocol):
    """Answers a batch of requests, each on its own: the batch must not change an answer."""

    def answer(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        """One reply a request, in order."""
        ...
