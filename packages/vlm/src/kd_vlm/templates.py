"""How a conversation is written for the language model, and which of its tokens are supervised.

A conversation becomes a list of segments, each with its role; segments are tokenised one by one and joined. No string
is ever split again, so a marker inside a question or an answer cannot shift the mask.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib.resources import files
from typing import Any, Literal

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
    BEGIN = "begin"  # a token that the tokenizer puts before every text
    SPECIAL = "special"  # one token of the vocabulary by its name, read only
    END = "end"  # the one that closes an answer; supervised


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


def qwen2_base(turns: Sequence[Turn], end: str = END) -> list[Segment]:
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
        segments += with_pictures(f"{text}USER: ", turn.question, " ASSISTANT:")
        segments += [Segment(Role.ANSWER, f" {turn.answer}"), Segment(Role.END, end)]
        text = ""
    return segments


def with_pictures(before: str, question: str, after: str) -> list[Segment]:
    """A question in its frame; its pictures move to its front, each followed by a newline."""
    segments: list[Segment] = []
    text = before
    if n_pictures := question.count(IMAGE):
        question = question.replace(IMAGE, "").strip()
        for i in range(n_pictures):
            segments += [*([Segment(Role.PROMPT, text)] if text else []), Segment(Role.IMAGE)]
            text = "\n" if question or i < n_pictures - 1 else ""
    return [*segments, Segment(Role.PROMPT, f"{text}{question}{after}")]


Template = Callable[[Sequence[Turn]], list[Segment]]
TemplateName = Literal["plain", "qwen2_base", "bunny", "chat"]
TEMPLATES: dict[str, Template] = {"plain": plain, "qwen2_base": qwen2_base, "bunny": qwen2_base}


def template_named(name: str, tokenizer: Any = None) -> Template:
    """The template called `name`, for `tokenizer` if one is given. Exact match only.

    `chat` is the tokenizer's own chat template. The others close an answer with the tokenizer's end token, and begin
    with its beginning-of-sequence token where it puts one before every text.

    Raises:
        ValueError: If there is no such template, or it cannot be written with this tokenizer.
    """
    if name == "chat":
        from kd_vlm.chat import chat_of

        return chat_of(tokenizer)
    try:
        template = TEMPLATES[name]
    except KeyError:
        raise ValueError(f"Unknown template {name!r}. Known: {', '.join(TEMPLATES)}, chat.") from None
    if tokenizer is None:
        return template
    first = [Segment(Role.BEGIN, token) for token in leading_tokens(tokenizer)]
    if name != "plain":
        template = partial(qwen2_base, end=end_token(tokenizer))
    return lambda turns: [*first, *template(turns)]


def leading_tokens(tokenizer: Any) -> list[str]:
    """What the tokenizer puts before every text (Llama's `<s>`; nothing for Qwen2 and SmolLM)."""
    bare, full = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
    n_first = max(0, len(full) - len(bare))
    return [str(t) for t in tokenizer.convert_ids_to_tokens(full[:n_first])] if full[n_first:] == bare else []


def chat_template(name: str = "qwen2_base", tokenizer: Any = None) -> str:
    """The template as a Jinja chat template for the processor: what it renders is what training saw.

    `plain` has no questions; its models are asked in the words of `qwen2_base`.
    """
    if name == "chat":
        from kd_vlm.chat import chat_template_of

        return chat_template_of(tokenizer)
    source = files("kd_vlm").joinpath("chat_template.jinja").read_text(encoding="utf-8")
    end = END if tokenizer is None else end_token(tokenizer)
    return source.replace("@SYSTEM@", SYSTEM.replace("'", "\\'")).replace("@END@", end.replace("'", "\\'"))


def encode(
    samples: Iterable[Sequence[Segment]], tokenizer: Any, *, image_id: int, tokens_per_image: int
) -> list[Encoded]:
    """Tokenise samples; each distinct text once, in one call.

    Special tokens written out in a text (`<|endoftext|>` in a question, say) stay ordinary text.

    Args:
        samples: The segments of each sample.
        tokenizer: A transformers tokenizer.
        image_id: The id that stands where a picture's features go.
        tokens_per_image: How many of them one picture takes.

    Raises:
        ValueError: If the tokenizer lacks a special token of a segment.
    """
    samples = [list(sample) for sample in samples]
    pieces: dict[Segment, list[int]] = {Segment(Role.IMAGE): [image_id] * tokens_per_image}
    distinct = dict.fromkeys(s for sample in samples for s in sample if s.role is not Role.IMAGE)
    if named := [s for s in distinct if s.role in NAMED]:
        vocabulary = tokenizer.get_vocab()
        pieces |= {s: [_id_of(s.text, vocabulary)] for s in named}
    pieces |= _pieces([s for s in distinct if s not in pieces], tokenizer)
    if not _prefixes_texts(tokenizer):
        return [_join(sample, pieces) for sample in samples]
    inner = _pieces([s for s in distinct if s.role not in NAMED], tokenizer, before="\n")
    return [_join(sample, pieces, inner) for sample in samples]


NAMED = (Role.BEGIN, Role.SPECIAL, Role.END)


def _pieces(segments: Sequence[Segment], tokenizer: Any, before: str = "") -> dict[Segment, list[int]]:
    """The ids of texts, each distinct one once; as if `before` stood before each."""
    texts = list(dict.fromkeys(s.text for s in segments))
    if not texts:
        return {}
    rows = tokenizer([before + t for t in texts], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    n_before = len(tokenizer(before, add_special_tokens=False)["input_ids"]) if before else 0
    ids_of = dict(zip(texts, (row[n_before:] for row in rows), strict=True))
    return {s: ids_of[s.text] for s in segments}


def _prefixes_texts(tokenizer: Any) -> bool:
    """Whether the tokenizer begins a text with a space of its own, but not what follows a special token (Llama 2)."""
    special = getattr(tokenizer, "eos_token", None) or getattr(tokenizer, "bos_token", None)
    if not special or not hasattr(tokenizer, "backend_tokenizer"):
        return False
    alone, behind = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", f"{special}a"))
    return bool(behind[1:] != alone)


def end_token(tokenizer: Any) -> str:
    """The token that closes an answer: `<|endoftext|>` if the vocabulary has it, else the tokenizer's own.

    Raises:
        ValueError: If it has neither; nothing would then ever end an answer.
    """
    if END in tokenizer.get_vocab():
        return END
    if not getattr(tokenizer, "eos_token", None):
        raise ValueError(f"The tokenizer has neither {END} nor an end-of-sequence token.")
    return str(tokenizer.eos_token)


def end_token_id(tokenizer: Any, name: str = "qwen2_base") -> int:
    """The id of the token that closes an answer in the template called `name`. Raises ValueError if there is none."""
    if name == "chat":
        from kd_vlm.chat import end_of

        return _id_of(end_of(tokenizer), tokenizer.get_vocab())
    return _id_of(end_token(tokenizer), tokenizer.get_vocab())


def _id_of(token: str, vocabulary: dict[str, int]) -> int:
    if token not in vocabulary:
        raise ValueError(f"The tokenizer has no token {token}; take the template for this tokenizer (template_named).")
    return int(vocabulary[token])


def _join(
    segments: Sequence[Segment], pieces: dict[Segment, list[int]], inner: dict[Segment, list[int]] | None = None
) -> Encoded:
    """`inner` is for texts that do not begin the sample, where a tokenizer treats those in another way."""
    ids: list[int] = []
    labels: list[int] = []
    begins = True
    for segment in segments:
        known = pieces if inner is None or begins or segment not in inner else inner
        piece = known[segment]
        begins = begins and segment.role is Role.BEGIN
        ids += piece
        labels += piece if segment.role in (Role.ANSWER, Role.END) else [IGNORE] * len(piece)
    return Encoded(tuple(ids), tuple(labels), sum(segment.role is Role.IMAGE for segment in segments))
