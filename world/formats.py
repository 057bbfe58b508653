"""A question in the words of a benchmark, and the answer in the form that its scorer wants."""

import random
from collections.abc import Callable

from world import prompts
from world.kinds.sign import Sign, proposed_words
from world.scene import Question, Scene, yes_no

Turn = tuple[str, str]  # what the human says, what the assistant answers
Format = Callable[[Scene | None, Question, random.Random], Turn | None]  # None: does not fit this question

CHART_TOPICS = ("value", "extreme", "compare", "sum", "mean")
READ_TOPICS = ("reading", "board", "form name", "form total", "form order")
YES_NO = ("yes", "no")
OPEN_SHARE = 0.7  # answers in words teach the picture, letters only the list


def turn(scene: Scene | None, question: Question, rng: random.Random) -> Turn:
    """`question` in a format drawn from those that fit it.

    Args:
        scene: What the question is about; None for a fact that needs no picture.
        question: What is asked.
        rng: Draws the format, and options where it has some.
    """
    first, last = (OPEN, WITH_OPTIONS) if rng.random() < OPEN_SHARE else (WITH_OPTIONS, OPEN)
    for write in (*rng.sample(first, len(first)), *rng.sample(last, len(last))):
        if (written := write(scene, question, rng)) is not None:
            return written
    raise ValueError(f"Expected a format that fits {question}, found none.")


def with_options(question: Question, rng: random.Random) -> tuple[list[str], str]:
    """Up to four options in the order of the question's choices, and the letter of the answer.

    The order is fixed, so that what has to be learned is the picture and not the list. The answer being uniform over
    the choices, its letter is uniform too.
    """
    others = [choice for choice in question.choices if choice != question.answer]
    options = [question.answer, *rng.sample(others, min(len(others), 3))]
    options.sort(key=question.choices.index)
    return options, prompts.letter(options.index(question.answer))


def _phrase(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """GQA, MMMU's open questions."""
    del scene, rng
    return question.text + prompts.PHRASE, question.answer


def _number_or_phrase(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """ChartQA."""
    del scene, rng
    return (question.text + prompts.NUMBER_OR_PHRASE, question.answer) if question.topic in CHART_TOPICS else None


def _directly(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """OCRBench, DocVQA."""
    del scene, rng
    return (question.text + prompts.DIRECTLY, question.answer) if question.topic in READ_TOPICS else None


def _with_tokens(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """TextVQA."""
    if not isinstance(scene, Sign) or question.topic not in READ_TOPICS:
        return None
    tokens = prompts.reference_tokens(proposed_words(scene.word, rng))
    return question.text + tokens + prompts.PHRASE, question.answer


def _claim(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """MME."""
    del scene
    asked = yes_no(question, rng)[rng.randrange(2)] if question.claims else question
    return (asked.text + prompts.YES_OR_NO + prompts.PHRASE, asked.answer) if asked.choices == YES_NO else None


def _word(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """RealWorldQA without letters."""
    del scene
    asked = yes_no(question, rng)[rng.randrange(2)] if question.claims and rng.random() < 0.5 else question
    return (asked.text + prompts.ONLY_WORD, asked.answer) if " " not in asked.answer else None


def _options(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """MMBench, SEED-Bench, MMVP, MMMU: a hint may come first."""
    del scene
    options, answer = with_options(question, rng)
    hint = f"{prompts.HINTS[question.topic]}\n" if question.topic in prompts.HINTS and rng.random() < 0.5 else ""
    return f"{hint}{question.text} Options:{prompts.lettered(options)}{prompts.LETTER}", answer


def _plain_options(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """AI2D."""
    del scene
    options, answer = with_options(question, rng)
    return question.text + prompts.lettered(options) + prompts.LETTER, answer


def _only_letter(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """ScienceQA, RealWorldQA: a hint may come first."""
    del scene
    options, answer = with_options(question, rng)
    hint = f"{prompts.HINTS[question.topic]} " if question.topic in prompts.HINTS and rng.random() < 0.5 else ""
    return f"{hint}{question.text}{prompts.lettered(options)}{prompts.ONLY_LETTER}", answer


def _select(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """CV-Bench."""
    del scene
    options, answer = with_options(question, rng)
    return question.text + prompts.SELECT + prompts.bracketed(options) + prompts.LETTER, answer


def _mathvista(scene: Scene | None, question: Question, rng: random.Random) -> Turn | None:
    """MathVista, with choices or with a number."""
    del scene
    is_number = question.answer.replace(".", "", 1).isdigit()
    if is_number and rng.random() < 0.75:
        answer_type = "float" if "." in question.answer else "integer"
        return prompts.mathvista_query(question.text, None, answer_type) + prompts.PHRASE, question.answer
    if not is_number and question.topic not in CHART_TOPICS:
        return None
    options, answer = with_options(question, rng)
    return prompts.mathvista_query(question.text, options, "text") + prompts.REASONED, answer


OPEN: tuple[Format, ...] = (_phrase, _number_or_phrase, _directly, _with_tokens, _claim, _word)
WITH_OPTIONS: tuple[Format, ...] = (_options, _plain_options, _only_letter, _select, _mathvista)
