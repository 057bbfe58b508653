"""How a conversation is written for the language model, and which of its tokens are supervised.

A conversation becomes a list of segments, each with its role; segments are tokenised one by one and joined. No string
is ever split again, so a marker inside a question or an answer cannot shift the mask.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from typing import Any

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
END = "<|endoftext|>"
IMAGE = "<image>"
IGNORE = -100  # the label of a token without supervision


class Role(Enum):
    PROMPT = "prompt"  # text the model reads
    ANSWER = "answer"  # text the model learns to write
    IMAGE = "image"  # the place of one picture's tokens
    END = "end"  # the end-of-text token that closes an answer; supervised


@dataclass(frozen=True)
class Segment:
    role: Role
    text: str = ""


@dataclass(frozen=True)
class Turn:
    """One turn: what the person says, and the answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one sample, of equal length, `IGNORE` where nothing is supervised; and its pictures."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    n_images: int = 0

    @property
    def n_supervised(self) -> int:
        return sum(label != IGNORE for label in self.labels)


def plain(turns: Sequence[Turn]) -> list[Segment]:
    """Pretraining: the picture, then its caption and a newline. The question is not shown.

    Raises:
        ValueError: If the conversation is not one turn about at least one picture.

    Source: LLaVA, `preprocess_plain`.
    """
    if len(turns) != 1 or IMAGE not in turns[0].question:
        raise ValueError(
            f"The template 'plain' expects one turn with {IMAGE} in it, got {len(turns)} turns. "
            "Use 'qwen2_base' for conversations."
        )
    pictures = [Segment(Role.IMAGE)] * turns[0].question.count(IMAGE)
    return [*pictures, Segment(Role.ANSWER, f"{turns[0].answer}\n")]


def qwen2_base(turns: Sequence[Turn]) -> list[Segment]:
    r"""TinyLLaVA's template for base language models; Bunny's is the same.

    `SYSTEM USER: <image>\nquestion ASSISTANT: answer<|endoftext|>USER: ...`. Supervised is everything from the space
    after `ASSISTANT:` to the end-of-text token. Pictures of a turn move to its front, each followed by a newline.

    Raises:
        ValueError: If there is no turn.

    Source: TinyLLaVA Factory, `qwen2_base_template`; several pictures in one turn are kept here, the original
    collapses them to one.
    """
    if not turns:
        raise ValueError("A conversation needs at least one turn.")
    segments: list[Segment] = []
    text = f"{SYSTEM} "
    for turn in turns:
        text += "USER: "
        question = turn.question
        if n_pictures := question.count(IMAGE):
            question = question.replace(IMAGE, "").strip()
            for i in range(n_pictures):
                segments += [Segment(Role.PROMPT, text), Segment(Role.IMAGE)]
                text = "\n" if question or i < n_pictures - 1 else ""
        segments += [
            Segment(Role.PROMPT, f"{text}{question} ASSISTANT:"),
            Segment(Role.ANSWER, f" {turn.answer}"),
            Segment(Role.END),
        ]
        text = ""
    return segments


Template = Callable[[Sequence[Turn]], list[Segment]]
TEMPLATES: dict[str, Template] = {"plain": plain, "qwen2_base": qwen2_base}


def template_named(name: str) -> Template:
    """The template called `name`. Exact match only."""
    try:
        return TEMPLATES[name]
    except KeyError:
        raise ValueError(f"Unknown template {name!r}. Known: {', '.join(TEMPLATES)}.") from None


def chat_template() -> str:
    """`qwen2_base` as a Jinja chat template for the processor: what it renders is what training saw."""
    source = files("kd_vlm").joinpath("chat_template.jinja").read_text(encoding="utf-8")
    return source.replace("@SYSTEM@", SYSTEM.replace("'", "\\'")).replace("@END@", END)


def encode(
    samples: Iterable[Sequence[Segment]], tokenizer: Any, *, image_id: int, tokens_per_image: int
) -> list[Encoded]:
    """Tokenise samples; each distinct text once, in one call.

    Special tokens written out in a text (`<|endoftext|>` in a question, say) stay ordinary text. The end token is
    looked up by its name, whatever the tokenizer calls its own end of sequence.

    Args:
        samples: The segments of each sample.
        tokenizer: A transformers tokenizer that knows `<|endoftext|>`.
        image_id: The id that stands where a picture's features go.
        tokens_per_image: How many of them one picture takes.

    Raises:
        ValueError: If the tokenizer has no `<|endoftext|>`.
    """
    samples = [list(sample) for sample in samples]
    end_id = end_token_id(tokenizer)
    texts = list(dict.fromkeys(s.text for sample in samples for s in sample if s.text))
    if not texts:
        return [Encoded((), ()) for _ in samples]
    rows = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ids_of: dict[str, list[int]] = dict(zip(texts, rows, strict=True))
    ids_of[""] = []
    return [_join(sample, ids_of, end_id, [image_id] * tokens_per_image) for sample in samples]


def end_token_id(tokenizer: Any) -> int:
    """The id of `<|endoftext|>`.

    Raises:
        ValueError: If the vocabulary lacks it; nothing would then ever end an answer.
    """
    end_id = tokenizer.get_vocab().get(END)
    if end_id is None:
        raise ValueError(f"The tokenizer has no token {END}; take a language model of the Qwen2 or SmolLM kind.")
    return int(end_id)


def _join(segments: Sequence[Segment], ids_of: dict[str, list[int]], end_id: int, picture: list[int]) -> Encoded:
    ids: list[int] = []
    labels: list[int] = []
    for segment in segments:
        piece = {Role.IMAGE: picture, Role.END: [end_id]}.get(segment.role) or ids_of[segment.text]
        ids += piece
        labels += piece if segment.role in (Role.ANSWER, Role.END) else [IGNORE] * len(piece)
    return Encoded(tuple(ids), tuple(labels), sum(segment.role is Role.IMAGE for segment in segments))
