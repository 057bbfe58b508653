"""What a task is, and the prompt pieces that several tasks share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
class Hub:
    """Where a benchmark lies on the Hugging Face hub.

    Attributes:
        dataset: Its id.
        files: Patterns of the files that the reader needs.
        revision: The commit; None where none is known to hold these files: the first fetch decides then, and writes it
            down beside the files.
    """

    dataset: str
    files: tuple[str, ...]
    revision: str | None = None


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
        metrics: By protocol: what is computed; the first is the main metric. A protocol that is not there is `paper`.
        hub: Where to fetch it from.
        folder: The folder that holds its data, where that is another task's.
        other_sizes: Numbers of items of other public editions, and which these are.
        scorer: Version of the scorer; changes when a score can.
        text_only: Whether some of its questions are about text alone, and so have no picture.
    """

    key: str
    group: str
    source: str
    size: int
    max_new_tokens: int
    read: Read
    prompts: Mapping[str, Ask]
    metrics: Mapping[str, Sequence[Metric]]
    hub: Hub
    folder: str = ""
    other_sizes: Mapping[int, str] = field(default_factory=dict)
    scorer: str = "1"
    text_only: bool = False

    def metrics_of(self, protocol: str) -> Sequence[Metric]:
        """The metrics under a protocol; those of `paper` where the protocol has none of its own for this task."""
        return self.metrics.get(protocol, self.metrics["paper"])


def asked(*lines: str, pictures: Sequence[Picture]) -> Prompt:
    """A prompt of these lines; empty ones are left out."""
    return Prompt("\n".join(line for line in lines if line), tuple(pictures))


def lettered(choices: Sequence[str]) -> str:
    """One line an option: `A. first`."""
    return "\n".join(f"{LETTERS[i]}. {choice}" for i, choice in enumerate(choices))


def select_from(item: Item, question: str | None = None, hint: str = "") -> Prompt:
    """VLMEvalKit's multiple-choice prompt; its last line ends with a space and a newline."""
    hinted = f"Hint: {hint}\n" if hint else ""
    options = f"Options:\n{lettered(item.choices)}\n" if item.choices else ""
    wish = "Please select the correct answer from the options above. \n" if item.choices else ""
    return Prompt(f"{hinted}Question: {question or item.question}\n{options}{wish}", tuple(item.pictures))


def with_letters(item: Item) -> Prompt:
    """Question, options, and the wish for a letter."""
    return asked(item.question, lettered(item.choices), LETTER_DIRECTLY, pictures=item.pictures)


def in_a_word(item: Item) -> Prompt:
    """The question and the wish for a word or phrase."""
    return asked(item.question, SINGLE_WORD, pictures=item.pictures)


def as_it_is(item: Item) -> Prompt:
    """The question alone."""
    return asked(item.question, pictures=item.pictures)
