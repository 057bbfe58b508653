"""What the predict loop asks of a model, so that any kind of model can answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kd_evalsuite.items import Picture


@dataclass(frozen=True, slots=True)
class Shown:
    """An image to show, with the digest of its bytes under which features of it may be kept."""

    sha256: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Request:
    """A user's turn: images first, then text. `options` are the replies among which `choose` takes one."""

    text: str
    images: tuple[Shown, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; `seconds` where the model knows how long this one took."""

    text: str
    tokens: int
    seconds: float | None = None


class Answerer(Protocol):
    """Answers a batch of requests, each on its own: the batch must not change an answer."""

    def answer(self, requests: Sequence[Request], max_new_tokens: int) -> list[Reply]:
        """One reply a request, in order."""
        ...


@runtime_checkable
class Chooser(Protocol):
    """A model that can say which of a request's options is the likeliest."""

    def choose(self, requests: Sequence[Request]) -> list[Reply]:
        """The likeliest option of each request, in order."""
        ...


@runtime_checkable
class Concurrent(Protocol):
    """A model that takes any number of requests and answers them in the order in which they are done."""

    def answer_each(self, requests: Sequence[Request], max_new_tokens: int) -> Iterator[tuple[int, Reply | Exception]]:
        """(number of the request, its reply or why there is none), as they come."""
        ...


@runtime_checkable
class Verifiable(Protocol):
    """A model that can answer one request in the plainest way, to compare a batch's answer with."""

    def answer_plainly(self, request: Request, max_new_tokens: int) -> Reply:
        """One reply, sharing nothing with other requests."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A model that has something to put away when nothing more is asked."""

    def close(self) -> None: ...


@runtime_checkable
class Described(Protocol):
    """A model that says how it runs: which class, device, precision, and by which path it answers."""

    @property
    def how(self) -> dict[str, str]:
        """Short facts for the log of a run."""
        ...
