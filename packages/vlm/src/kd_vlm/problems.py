"""Why a sample cannot be used, in one word and in a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Policy = Literal["error", "skip", "blank"]
Cause = Literal[
    "json",  # the row is no valid JSON
    "schema",  # it has other fields or types
    "turns",  # human and gpt do not alternate
    "image_count",  # as many <image> as images were expected
    "image_outside",  # a path leaves the image folder
    "image_missing",
    "image_too_large",  # its header promises too many pixels
    "image_corrupt",  # it does not decode
    "template",  # the template cannot write it
    "too_long",  # more tokens than allowed
    "no_supervision",  # no token to learn from
]
OF_TOKENS: tuple[Cause, ...] = ("template", "too_long", "no_supervision")  # of a template, a tokenizer and a length
OF_PICTURES = ("image_outside", "image_missing", "image_too_large", "image_corrupt")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a sample, and the picture it is about, if any."""

    cause: Cause
    message: str
    image: str | None = None


Known = Mapping[int, Sequence[Problem]]  # what a validation found, by row


class BadSampleError(ValueError):
    """A sample, or one of its pictures, cannot be used; `cause` says why in one word."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class MissingImageError(BadSampleError, FileNotFoundError):
    """A picture is not there."""


def blankable(problems: Sequence[Problem]) -> bool:
    """Whether grey pictures would mend the sample."""
    return all(problem.cause in OF_PICTURES for problem in problems)
