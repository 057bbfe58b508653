"""The words that benchmarks put around a question and its options."""

from collections.abc import Sequence

PHRASE = "\nAnswer the question using a single word or phrase."
NUMBER_OR_PHRASE = "\nAnswer the question using a single number or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
ONLY_LETTER = "\nPlease answer directly with only the letter of the correct option and nothing else."
ONLY_WORD = "\nPlease answer directly with a single word or number."
DIRECTLY = "\nGive the short answer directly."
REASONED = "\nFirst show your reasoning process and then give the final answer."
YES_OR_NO = " Please answer yes or no."
SELECT = " Select from the following choices."


HINTS = {  # topic: what some benchmarks say before the question
    "value": "The bars start at zero.",
    "extreme": "The bars start at zero.",
    "place": "A flag has three stripes.",
    "labelled shape": "Every shape has a letter beside it.",
}


def letter(index: int) -> str:
    """0 is A."""
    return chr(ord("A") + index)


def lettered(options: Sequence[str]) -> str:
    """Each option on a new line, as "A. red"."""
    return "".join(f"\n{letter(k)}. {option}" for k, option in enumerate(options))


def bracketed(options: Sequence[str]) -> str:
    """Each option on a new line, as "(A) red"."""
    return "".join(f"\n({letter(k)}) {option}" for k, option in enumerate(options))


def reference_tokens(tokens: Sequence[str]) -> str:
    """What a text recogniser proposes, on a line of its own."""
    return f"\nReference OCR tokens: {', '.join(tokens)}"


def mathvista_query(question: str, options: Sequence[str] | None, answer_type: str) -> str:
    """The `query` column of MathVista: a hint on the form of the answer, the question and its choices."""
    if options is not None:
        hint = "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
        return f"Hint: {hint}\nQuestion: {question}\nChoices:{bracketed(options)}"
    kind, example = {
        "integer": ("an integer answer", "1, 2, 3"),
        "float": ("a floating-point number with one decimal place", "1.2, 1.3, 1.4"),
    }[answer_type]
    hint = f"Please answer the question requiring {kind} and provide the final value, e.g., {example}, at the end."
    return f"Hint: {hint}\nQuestion: {question}"
