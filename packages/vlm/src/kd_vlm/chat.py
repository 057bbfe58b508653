r"""A tokenizer's own chat template as segments with roles.

The template is rendered once with marks in place of the messages, which gives the frame around them, and once with the
messages themselves; a conversation is used only if frame and messages together are exactly what the tokenizer renders.
So text inside a message can never be taken for a part of the frame. What belongs to the answer is what lies behind the
tokenizer's generation prompt.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, product
from typing import Any

from jinja2 import TemplateError

from kd_vlm.problems import BadSampleError
from kd_vlm.templates import IMAGE, Role, Segment, Template, Turn, with_pictures

MARK = "\ue000{}\ue001"  # private use characters, which no template and no trimming touches
_MARK = re.compile("\ue000(\\d+)\ue001")

JINJA_BEFORE = """\
{%- set kd = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message['content'] is string -%}
{%- set pictures = 0 -%}{%- set text = message['content'] -%}
{%- else -%}
{%- set pictures = message['content'] | selectattr('type', 'equalto', 'image') | list | length -%}
{%- set text = message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('') -%}
{%- endif -%}
{%- if pictures -%}{%- set text = ('<image>\\n' * pictures ~ text | trim) | trim -%}{%- endif -%}
{%- set kd.messages = kd.messages + [{'role': message['role'], 'content': text}] -%}
{%- endfor -%}
{%- set messages = kd.messages -%}
"""


@dataclass(frozen=True)
class Frame:
    """What stands around the messages of a conversation of n turns.

    Attributes:
        before: (n + 1) texts: before each question, and after the last answer.
        prompt: (n) texts between question and answer, up to the end of the generation prompt.
        opening: (n) texts that the model writes itself before the answer.
    """

    before: tuple[str, ...]
    prompt: tuple[str, ...]
    opening: tuple[str, ...]

    def around(self, questions: Sequence[str], answers: Sequence[str]) -> str:
        """The whole conversation as text."""
        turns = zip(self.before, questions, self.prompt, self.opening, answers, strict=False)
        return "".join(chain.from_iterable(turns)) + self.before[-1]


def chat_of(tokenizer: Any) -> Template:
    """The chat template of `tokenizer`; pictures of a turn move to its front, a newline after each.

    Raises:
        ValueError: If it has none, or one whose messages and generation prompts cannot be told from the rest.
    """
    frame_of: Callable[[int], Frame] = cache(lambda n: _frame(tokenizer, n))
    parts_of: Callable[[str], list[Segment]] = cache(lambda text: _parts(tokenizer, text))
    end_of(tokenizer)

    def write(turns: Sequence[Turn]) -> list[Segment]:
        if not turns:
            raise ValueError("A conversation needs at least one turn.")
        questions = [with_pictures("", turn.question, "") for turn in turns]
        frame = frame_of(len(turns))
        texts = ["".join(IMAGE if s.role is Role.IMAGE else s.text for s in q) for q in questions]
        trim_question, trim_answer = _trims(tokenizer, frame, texts, [turn.answer for turn in turns])
        segments = [*parts_of(frame.before[0])]
        for k, turn in enumerate(turns):
            segments += [replace(s, text=trim_question(s.text)) if len(questions[k]) == 1 else s for s in questions[k]]
            segments += parts_of(frame.prompt[k])
            segments += [Segment(Role.ANSWER, f"{frame.opening[k]}{trim_answer(turn.answer)}")]
            end, *rest = parts_of(frame.before[k + 1])
            segments += [replace(end, role=Role.END), *rest]
        return _joined(segments)

    return write


def chat_template_of(tokenizer: Any) -> str:
    """The tokenizer's chat template for messages with pictures, which come first in a message, a newline after each."""
    return JINJA_BEFORE + _source(tokenizer)


def end_of(tokenizer: Any) -> str:
    """The special token that closes an answer.

    Raises:
        ValueError: If the template puts none behind it: the model would never learn to stop.
    """
    after = _parts(tokenizer, _frame(tokenizer, 1).before[-1])
    if not after or after[0].role is not Role.SPECIAL:
        raise ValueError("The chat template closes an answer with no special token; take the template 'qwen2_base'.")
    return after[0].text


def _source(tokenizer: Any) -> str:
    if tokenizer is None or not tokenizer.chat_template:
        raise ValueError(
            "The template 'chat' is the tokenizer's own chat template, and this one has none. "
            "Take 'qwen2_base' for base language models."
        )
    return str(tokenizer.get_chat_template())


def _render(tokenizer: Any, questions: Sequence[str], answers: Sequence[str]) -> str:
    """The conversation as the tokenizer renders it; with the generation prompt where the last answer is missing."""
    messages = [{"role": "user", "content": text} for text in questions]
    for k, text in enumerate(answers):
        messages.insert(2 * k + 1, {"role": "assistant", "content": text})
    try:
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=len(questions) > len(answers))
        )
    except TemplateError as error:
        raise BadSampleError("template", f"The chat template refuses the conversation: {error}") from None


def _frame(tokenizer: Any, n_turns: int) -> Frame:
    _source(tokenizer)
    questions, answers = ([MARK.format(2 * k + i) for k in range(n_turns)] for i in (0, 1))
    whole = _render(tokenizer, questions, answers)
    pieces = _MARK.split(whole)
    if pieces[1::2] != [str(i) for i in range(2 * n_turns)]:
        raise ValueError(
            "The chat template leaves out, repeats or reorders messages; its answers cannot be told apart."
        )
    prompt, opening = [], []
    for k, between in enumerate(pieces[2::4]):
        asked = _render(tokenizer, questions[: k + 1], answers[:k])
        generation = asked[asked.rindex(questions[k]) + len(questions[k]) :]
        if not whole.startswith(asked) or not between.startswith(generation):
            raise ValueError("The chat template's generation prompt is not what precedes an answer in a conversation.")
        prompt.append(generation)
        opening.append(between[len(generation) :])
    return Frame(tuple(pieces[::4]), tuple(prompt), tuple(opening))


def _trims(
    tokenizer: Any, frame: Frame, questions: Sequence[str], answers: Sequence[str]
) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """What the template does to questions and to answers: nothing, or it strips them."""
    rendered = _render(tokenizer, questions, answers)
    trims: tuple[Callable[[str], str], ...] = (str, str.strip)
    for of_question, of_answer in product(trims, repeat=2):
        if frame.around([of_question(q) for q in questions], [of_answer(a) for a in answers]) == rendered:
            return of_question, of_answer
    raise BadSampleError("template", "The chat template changes the text of the messages by more than trimming it.")


def _parts(tokenizer: Any, text: str) -> list[Segment]:
    """A piece of the frame as special tokens and text between them, as the tokenizer sees it."""
    tokens = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
    names = sorted(map(re.escape, tokens), key=len, reverse=True)
    pieces = re.split(f"({'|'.join(names)})", text) if names else [text]
    for i in range(1, len(pieces), 2):
        if tokens[pieces[i]].lstrip:
            pieces[i - 1] = pieces[i - 1].rstrip()
        if tokens[pieces[i]].rstrip:
            pieces[i + 1] = pieces[i + 1].lstrip()
    return [Segment(Role.SPECIAL if i % 2 else Role.PROMPT, piece) for i, piece in enumerate(pieces) if piece]


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Neighbouring texts of the prompt as one, so that tokens may span them; empty ones are gone."""
    joined: list[Segment] = []
    for segment in segments:
        if segment.role is Role.PROMPT and joined and joined[-1].role is Role.PROMPT:
            joined[-1] = Segment(Role.PROMPT, joined[-1].text + segment.text)
        elif segment.role is not Role.PROMPT or segment.text:
            joined.append(segment)
    return joined
