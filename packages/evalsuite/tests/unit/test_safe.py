"""Whatever a model replies, a terminal, a page, a table and a spreadsheet show it and do nothing else."""

import csv
import io
import re
import time

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kd_evalsuite.render import render
from kd_evalsuite.safe import clipped, csv_cell, latex, markdown, one_line, printable
from kd_evalsuite.tabulate import csv_text
from kd_evalsuite.view import plain
from markdown_it import MarkdownIt
from rich.console import Console

PIECES = st.sampled_from(
    ["\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\x1bP1$r\x1b\\", "\x1b", "\u202e", "\ud800", "\x00", "\r\n", "\t",
     "<script>alert(1)</script>", "<img src=x onerror=y>", "](javascript:x)", "![a](b)", "|", "`", "**", "\\", "&lt;",
     "=1+1", "@SUM(A1)", "-2", "+3", "＝1", "[bold]", "[/]", ":smile:", "$x$", "\\input{/etc/passwd}", "%", "{", "}",
     "~"]
)  # fmt: skip
HOSTILE = st.lists(PIECES | st.text(max_size=6), max_size=8).map("".join)


@given(HOSTILE)
def test_printable_text_has_no_control_characters_and_stays_itself(text):
    shown = printable(text)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert printable(shown) == shown
    shown.encode()  # no lone surrogates


def test_escape_sequences_go_whole_and_plain_text_stays():
    assert printable("\x1b[1;31mred\x1b[0m") == "red"
    assert printable("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == "link"
    assert printable("\x1b]0;title\x07text") == "text"
    assert printable("\x9b31mred") == "red"
    assert printable("before \x1b]0;never ends, and is shown") == "before 0;never ends, and is shown"
    assert printable("Ünïcode 中文 ✓\nnext") == "Ünïcode 中文 ✓\nnext"


@given(HOSTILE)
def test_a_terminal_gets_the_printable_text_and_nothing_else(text):
    """With a letter at the end that belongs to no sequence: rich doubles a backslash at the very end."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=10_000, emoji=False, highlight=False)
    console.print(plain(f"{text}é"), end="")
    assert stream.getvalue() == printable(f"{text}é")


@given(HOSTILE)
def test_markdown_shows_the_text_itself_in_one_cell(text):
    source = f"| a | b |\n|---|---|\n| {markdown(text)} | end |\n"
    tokens = MarkdownIt("commonmark").enable("table").parse(source)
    cells = [t for t in tokens if t.type == "inline"]
    assert len(cells) == 4
    children = cells[2].children or []
    assert {t.type for t in children} <= {"text", "text_special"}
    assert "".join(t.content for t in children) == one_line(text)


@given(HOSTILE)
def test_latex_has_no_command_that_is_not_ours(text):
    shown = latex(text)
    commands = re.findall(r"\\([a-z]+|.)", shown)
    ours = {"textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "textquotedbl"}
    assert set(commands) <= ours | {"textasciigrave", "{", "}", "$", "&", "%", "#", "_"}
    assert not re.search(r"(?<!\\)[%$&#_]", shown)


@given(st.lists(HOSTILE, min_size=1, max_size=3))
def test_a_csv_reader_finds_the_cells_and_no_formula(texts):
    read = list(csv.reader(io.StringIO(csv_text([{str(i): t for i, t in enumerate(texts)}]))))[1:]
    cells = read[0] if read else [""]
    for cell, text in zip(cells, texts, strict=True):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"))
        assert cell.removeprefix("'") == printable(text).removeprefix("'")


@pytest.mark.parametrize("piece", ["\x1b[", "\x1b]", "\x1bP", "\x9d", "\x90a", "\x1b", "\x9b0", " ", "|", "\x1b]a"])
def test_a_long_reply_is_read_once(piece):
    """A pattern that looks for an end again and again would take minutes at 200,000 characters."""
    start = time.thread_time()
    text = piece * (200_000 // len(piece))
    for escape in (printable, markdown, latex, csv_cell):
        escape(text)
    assert time.thread_time() - start < 5


def test_numbers_in_csv_stay_numbers():
    assert csv_cell(-0.5) == -0.5
    assert csv_cell("-0.5") == "'-0.5"


def test_clipped_says_how_long_it_was():
    assert clipped("x" * 1_000_000, 10) == "xxxxxxxxxx… (1,000,000 characters)"
    assert clipped("short") == "short"


@pytest.mark.parametrize("template", ["report.html.jinja", "report.tex.jinja"])
def test_a_template_that_lacks_something_is_an_error(template):
    with pytest.raises(jinja2.UndefinedError):
        render(template, {})
