"""Text from outside, made harmless for where it is shown: a terminal, Markdown, a spreadsheet, LaTeX.

Model replies, dataset questions and model names are data. HTML needs nothing here: its templates escape by themselves
(`render.py`), after `printable`.
"""

import re

_TEXT = r"[^\x07\x1b\x90\x98\x9c-\x9f]*"  # of a sequence with a text; none reaches over the next one
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    rf"|(?:\x1b\]|\x9d){_TEXT}(?:\x07|\x1b\\|\x9c)"  # OSC: titles, links
    rf"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f]){_TEXT}(?:\x1b\\|\x9c)"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"  # two and three characters, and the beginning of a text that never ends
)
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
_MARKDOWN = re.compile(r"([\\`*_\[\]<|&~#!])")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
}  # fmt: skip


def printable(text: str) -> str:
    """The text without terminal escape sequences; tabs become spaces, other control characters �. Newlines stay.

    Invisible format characters, among them those that reverse the direction of writing, and lone surrogates count as
    control characters.
    """
    plain = _ESCAPES.sub("", text).replace("\t", " ").replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in plain)


def clipped(text: str, length: int = 400) -> str:
    """The text, or its beginning and how long it is."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def one_line(text: str) -> str:
    """Printable text on one line."""
    return " ".join(printable(text).split())


def markdown(text: str) -> str:
    """Text on one line that Markdown shows as it is, also in a table's cell."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def latex(text: str) -> str:
    """Text on one line that LaTeX typesets as it is."""
    return "".join(_LATEX.get(c, c) for c in one_line(text))


def csv_cell(value: object) -> object:
    """A cell that a spreadsheet does not compute: text that begins like a formula gets an apostrophe; numbers stay."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
