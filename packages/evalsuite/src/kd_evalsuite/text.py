r"""From a reply to an answer. Total functions: any text gives an answer or None, and None is never a guess.

`letter` is what the protocol `paper` uses wherever an option is asked for. In this order, the first that applies wins:

1. the reply is one letter, alone or in brackets, with or without a final mark: `b`, `(B)`, `B.`, `**B**`;
2. it starts with a letter that is marked off: `B. green`, `(B) green`, `B) green`, `B: …`, a letter on a line of its
   own, or a capital followed by a word (`B because …`);
3. it puts a letter into a box (`\boxed{B}`), or names it after "answer", "correct option" or "best choice": `The
   answer is (B).`; the last such phrase counts; where there is none, the last letter after "option" or "choice";
4. it contains exactly one of the option texts as whole words, and names no other letter;
5. exactly one capital letter stands alone in it.

The article A and the pronoun I are no letters: what follows them tells (`A dog`, `A is right`; `_WORDS`), so that no
option is read more readily than another. Letters beyond the number of options do not count. Two candidates (`B or C`,
`(A), (B)`) are no answer.
"""

import re
from collections.abc import Sequence

EXTRACTOR_VERSION = "2"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LIMIT = 20_000  # characters of a reply that are looked at

_ALONE = re.compile(r"[(\[{<]?\s*([A-Za-z])\s*[)\]}>]?\s*[.,:;!)]*", re.ASCII)
_START = re.compile(
    r"[(\[](?P<bracketed>[A-Za-z])[)\]]"
    r"|(?P<marked>[A-Za-z])(?:[.):](?=\s|$|[A-Z(])|,(?=\s))"
    r"|(?P<line>[A-Za-z])\s*\n"
    r"|(?P<capital>[A-Z])\s+(?=[a-z])"
)
_TAIL = r"(?:\s+(?:is|would be|should be|must be))?\s*[:=]?\*?\s*(?:option\s+)?[(\[\"'*]*([A-Za-z])(?![A-Za-z0-9'’])"
_BOXED = r"\\boxed\{\s*(?:\\text\w*\{\s*)?\(?([A-Za-z])[).]?\s*\}"
_ANSWER = re.compile(rf"{_BOXED}|\b(?:answer|(?:correct|right|best) (?:option|choice))\b\*?{_TAIL}", re.IGNORECASE)
_OPTION = re.compile(rf"\b(?:option|choice)\b\*?{_TAIL}", re.IGNORECASE)
_WORDS = re.compile(  # an A before a word that can follow an article; an I before any but of a few words
    r"(?<![A-Za-z0-9'’])(?:"
    r"A\s+(?!(?:is|was|or|and|but|because|since|as|seems|appears|has|shows|describes|depicts|matches|would)\b)(?=[a-z])"
    r"|I(?=['’]|\s+(?!(?:is|or|and|because)\b)[a-z]))"
)
_ANOTHER = re.compile(r"[)\]*\"'.]*\s*(?:,|/|&|\bor\b|\band\b)\s*(?:[(\[][A-Za-z]|[A-Z])(?![A-Za-z0-9'’])")
_SPACES = re.compile(r"\s+")
_SAID = re.compile(r"answer\*{0,2}\s*(?:is\b\s*[:=]?|[:=])", re.IGNORECASE)
_NUMBER = re.compile(r"-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<!\d)\.\d+)(?:[eE][+-]?\d{1,3})?")


def letter(reply: str, choices: Sequence[str]) -> str | None:
    """The capital letter of the option that `reply` chooses (rules above), or None."""
    known = LETTERS[: len(choices)] or LETTERS
    whole = _single(reply[:LIMIT]).strip().strip("*_`\"'").strip()
    text = whole.replace("**", "").replace("__", "")
    if match := _ALONE.fullmatch(text):
        return _known(match[1], known)
    if (match := _START.match(text)) and not _WORDS.match(text):
        return None if _weighs(text, match) else _known(str(match[match.lastgroup or 0]), known)
    for phrase in (_ANSWER, _OPTION):
        if found := [m for m in phrase.finditer(text) if _is_letter(m, text)]:
            last = found[-1]
            return None if _weighs(text, last) else _known(str(last[last.lastindex or 0]), known)
    named = _named(whole, choices)
    alone = _isolated(text, known)
    if len(named) == 1:
        return named[0] if not [x for x in alone if x != named[0]] else None
    return alone[0] if len(alone) == 1 and not named else None


def _single(text: str) -> str:
    """Each run of white space as a newline, if it holds one, else a space: no pattern meets a run, all stay linear."""
    return _SPACES.sub(lambda run: "\n" if "\n" in run[0] else " ", text)


def _known(found: str, known: str) -> str | None:
    return found.upper() if found.upper() in known else None


def _weighs(text: str, match: re.Match[str]) -> bool:
    """Whether the letter found is one of several: `B or C`, `(A) and (B)`, `A, B`."""
    return _ANOTHER.match(text, match.end(match.lastindex or 0)) is not None


def _is_letter(match: re.Match[str], text: str) -> bool:
    """Whether the letter of an answer phrase is one: not the article of `the answer is a dog`."""
    start = match.start(match.lastindex or 0)
    rest = text[match.end() :].strip(".)]!*\"' ")
    return (text[start].isupper() and not _WORDS.match(text, start)) or not rest


def _isolated(text: str, known: str) -> list[str]:
    found = re.findall(r"(?<![A-Za-z0-9'’])([A-Z])(?![A-Za-z0-9'’])", _WORDS.sub(" ", text))
    return sorted({x for x in found if x in known})


def _named(text: str, choices: Sequence[str]) -> list[str]:
    """Letters of the options whose text stands in the reply; a text inside a longer one that does is not counted."""
    plain = f" {words(text)} "
    inside = {LETTERS[i]: words(c) for i, c in enumerate(choices[:26]) if words(c) and f" {words(c)} " in plain}
    return [k for k, v in inside.items() if not any(v != w and f" {v} " in f" {w} " for w in inside.values())]


def words(text: str) -> str:
    """Lower case, punctuation at the edges of words removed, one space between words."""
    return " ".join(w for w in (part.strip(".,:;!?()[]{}\"'*`") for part in text.lower().split()) if w)


def yes_no(reply: str) -> str | None:
    """`Yes` or `No`: the first word, or a lone y or n, or the only one of the two in the reply; else None."""
    tokens = re.findall(r"[a-z]+", reply[:LIMIT].lower())
    if tokens[:1] in (["yes"], ["no"]):
        return tokens[0].capitalize()
    if tokens in (["y"], ["n"]):
        return {"y": "Yes", "n": "No"}[tokens[0]]
    found = {"yes", "no"} & set(tokens)
    return found.pop().capitalize() if len(found) == 1 else None


def short(reply: str) -> str | None:
    """A short answer for exact comparison: stripped, lower case, without final dots; None if nothing is left."""
    return reply[:LIMIT].strip().lower().rstrip(".") or None


def collapse(text: str) -> str:
    """Lower case, stripped, one space between words."""
    return _SPACES.sub(" ", text[:LIMIT]).strip().lower()


def number(text: str) -> float | None:
    """The number that the whole text is, or None. Thousands separators and units are not numbers."""
    try:
        return float(text) if len(text) < 400 else None
    except ValueError:
        return None


def last_number(reply: str) -> str | None:
    """The number after the last "answer is" or "answer:", or else the last in the reply, without thousands separators.

    Of a sum (`the answer is 3 + 4 = 7`) what stands behind its last equals sign.
    """
    text = reply[:LIMIT]
    tail = _SAID.split(text)[-1]
    sentence = re.split(r"[.!?]\s|\n", tail.lstrip(), maxsplit=1)[0]
    if tail != text and (found := _NUMBER.findall(sentence.rpartition("=")[2]) or _NUMBER.findall(tail)):
        return str(found[0].replace(",", ""))
    found = _NUMBER.findall(text)
    return str(found[-1].replace(",", "")) if found else None
