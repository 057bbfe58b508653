"""What a task is, and the prompt pieces that several tasks share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_evalsuite.items import Item, Picture, Prompt
from kd_evalsuite.metrics import Metric
from kd_evalsuite.text import LETTERS

SINGLE_WORD = "Answer the question using a single word or phrase."
LETTER_DIRECTLY = "Answer with the option's letter from the given choices directly."
SHORT_ANSWER = "Give the short answer directly."
LETTER_TOKENS, WORD_TOKENS = 16, 32  # enough for `The correct answer is (B).`, and for a phrase

Read = Callable[[Path, bool], list[Item]]
Ask = Callable[[Item], Prompt]


@dataclass(frozen=True, slots=True)
class Task:
    """One benchmark.

    Attributes:
        key: Its name everywhere: folder, file, metric.
        group: One of the four groups of the study.
        source: The public dataset and its split.
        size: Items in the public dataset.
        max_new_tokens: Length of a reply.
        read: (folder, pictures) -> items; without pictures, items only know that they have one.
        prompts: By prompt set: how an item is asked.
        metrics: By protocol: what is computed; the first is the main metric.
        scorer: Version of the scorer; changes when a score can.
    """

    key: str
    group: str
    source: str
    size: int
    max_new_tokens: int
    read: Read
    prompts: Mapping[str, Ask]
    metrics: Mapping[str, Sequence[Metric]]
    scorer: str = "1"


def asked(*lines: str, pictures: Sequence[Picture]) -> Prompt:
    """A prompt of these lines; empty ones are left out."""
    return Prompt("\n".join(line for line in lines if line), tuple(pictures))


def lettered(choices: Sequence[str]) -> str:
    """One line an option: `A. first`."""
    return "\n".join(f"{LETTERS[i]}. {choice}" for i, choice in enumerate(choices))
