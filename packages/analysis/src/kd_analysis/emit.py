"""A table as CSV in full precision, Markdown, LaTeX (booktabs) and HTML. What is missing is `--` or empty; never 0."""

import csv
import io
import itertools
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from kd_analysis.render import md_cell, render
from kd_analysis.table import Cell, Column, Mark, Row, Table, marks

MISSING = "--"


def write(table: Table, folder: Path) -> list[Path]:
    """`<name>.csv`, `.md`, `.tex` and `.html`; equal tables give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    page = render("table.html.jinja", {"title": table.title, "table": html(table)})
    texts = {"csv": as_csv(table), "md": markdown(table), "tex": latex(table), "html": page}
    for ending, text in texts.items():
        (folder / f"{table.name}.{ending}").write_text(text, encoding="utf-8", newline="")
    return [folder / f"{table.name}.{ending}" for ending in texts]


def as_csv(table: Table) -> str:
    """One line a row: block, labels, and for each column its value and half of its interval, in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    named = [n for c in table.columns for n in (c.key, f"{c.key}_half")]
    writer.writerow(["block", *(s.lower() for s in table.stubs), *named, *(k for k, _ in table.texts)])
    for block in table.blocks:
        for one in block.rows:
            values = [v for c in table.columns for v in _full(one.cells.get(c.key))]
            writer.writerow([block.title, *one.labels, *values, *(one.words.get(k, "") for k, _ in table.texts)])
    return out.getvalue()


def _full(cell: Cell | None) -> tuple[str, str]:
    numbers = (cell.value, cell.half) if cell else (math.nan, math.nan)
    value, half = ("" if math.isnan(n) else repr(float(n)) for n in numbers)
    return value, half


def shown(column: Column, value: float) -> str:
    """A number as the column shows it, with a thousands separator; what rounds to zero has no sign."""
    text = f"{value:{'+' if column.signed else ''},.{column.digits}f}"
    return text if text.strip("+-0.,") else text.lstrip("+-")


# ---------------------------------------------------------------- Markdown


def markdown(table: Table) -> str:
    """A GitHub table a block, under its caption."""
    lines = [f"### {md_cell(table.title)}", "", md_cell(table.caption), ""]
    heads = [*table.stubs, *(f"{c.group}: {c.title}" if _repeated(table, c) else c.title for c in table.columns)]
    heads += [title for _, title in table.texts]
    for block in table.blocks:
        if block.title:
            lines += [f"**{md_cell(block.title)}**", ""]
        lines.append(_md_line([md_cell(head) for head in heads]))
        lines.append("|" + "---|" * len(table.stubs) + "---:|" * len(table.columns) + "---|" * len(table.texts))
        found = marks(table, block)
        for i, one in enumerate(block.rows):
            cells = [_md(c, one.cells.get(c.key), found.get((i, c.key), "")) for c in table.columns]
            words = [md_cell(one.words.get(k, MISSING)) for k, _ in table.texts]
            lines.append(_md_line([*(md_cell(text) for text in one.labels), *cells, *words]))
        lines.append("")
    return "\n".join(lines)


def _repeated(table: Table, column: Column) -> bool:
    """Whether a heading alone does not tell the column."""
    return [c.title for c in table.columns].count(column.title) > 1


def _md_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(column: Column, cell: Cell | None, mark: Mark) -> str:
    wrap = {"best": "**{}**", "second": "<ins>{}</ins>", "": "{}"}[mark]
    return _set(column, cell, wrap.format, " ± {}", "\u2212")


def _set(column: Column, cell: Cell | None, wrapped: Callable[[str], str], interval: str, minus: str) -> str:
    if cell is None or math.isnan(cell.value):
        return MISSING
    half = "" if math.isnan(cell.half) else interval.format(f"{cell.half:,.{column.digits}f}")
    return wrapped(shown(column, cell.value).replace("-", minus)) + half


# ---------------------------------------------------------------- LaTeX

TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
}  # fmt: skip


def tex_escaped(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return "".join(TEX.get(letter, letter) for letter in text)


def latex(table: Table) -> str:
    """A booktabs table with caption and label; needs the packages booktabs and graphicx."""
    count = len(table.stubs) + len(table.columns) + len(table.texts)
    layout = "l" * len(table.stubs) + "r" * len(table.columns) + "l" * len(table.texts)
    lines = [
        r"\begin{table*}[t]", r"\centering",
        rf"\caption{{{tex_escaped(table.caption)}}}", rf"\label{{tab:{table.name}}}",
        r"\resizebox{\linewidth}{!}{%", rf"\begin{{tabular}}{{{layout}}}", r"\toprule", *_tex_heads(table), r"\midrule",
    ]  # fmt: skip
    for number, block in enumerate(table.blocks):
        if number:
            lines.append(r"\midrule")
        if block.title:
            lines.append(rf"\multicolumn{{{count}}}{{l}}{{\textit{{{tex_escaped(block.title)}}}}} \\")
        found = marks(table, block)
        for i, one in enumerate(block.rows):
            lines.append(_tex_row(table, one, [found.get((i, c.key), "") for c in table.columns]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table*}", ""])


def _tex_heads(table: Table) -> list[str]:
    groups = [(g, len(list(some))) for g, some in itertools.groupby(c.group for c in table.columns)]
    heads = [*table.stubs, *(c.title for c in table.columns), *(title for _, title in table.texts)]
    names = " & ".join(tex_escaped(h) for h in heads) + r" \\"
    if not any(g for g, _ in groups):
        return [names]
    first, rules, at = [""] * len(table.stubs), [], len(table.stubs) + 1
    for group, size in groups:
        first.append(rf"\multicolumn{{{size}}}{{c}}{{{tex_escaped(group)}}}")
        rules += [rf"\cmidrule(lr){{{at}-{at + size - 1}}}"] if group else []
        at += size
    return [" & ".join([*first, *[""] * len(table.texts)]) + r" \\", "".join(rules), names]


def _tex_row(table: Table, one: Row, found: Sequence[Mark]) -> str:
    wraps = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}
    interval = r" {{\scriptsize$\pm${}}}"
    cells = [
        _set(c, one.cells.get(c.key), wraps[mark].format, interval, "$-$")
        for c, mark in zip(table.columns, found, strict=True)
    ]
    words = [tex_escaped(one.words.get(k, MISSING)) for k, _ in table.texts]
    return " & ".join([*(tex_escaped(text) for text in one.labels), *cells, *words]) + r" \\"


# ---------------------------------------------------------------- HTML


def html(table: Table) -> str:
    """The `table` element alone, escaped; its classes are those of style.css."""
    count = len(table.stubs) + len(table.columns) + len(table.texts)
    lines = ["<table>", f"<caption>{escape(table.caption)}</caption>"]
    lines += ["<thead>", *_html_heads(table), "</thead>", "<tbody>"]
    for block in table.blocks:
        if block.title:
            lines.append(f'<tr class="group"><th colspan="{count}">{escape(block.title)}</th></tr>')
        found = marks(table, block)
        for i, one in enumerate(block.rows):
            cells = [f"<td>{_html(c, one.cells.get(c.key), found.get((i, c.key), ''))}</td>" for c in table.columns]
            labels = [f'<td class="label">{escape(text)}</td>' for text in one.labels]
            words = [f'<td class="label">{escape(one.words.get(k, MISSING))}</td>' for k, _ in table.texts]
            lines.append(f"<tr>{''.join([*labels, *cells, *words])}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def _html_heads(table: Table) -> list[str]:
    groups = [(g, len(list(some))) for g, some in itertools.groupby(c.group for c in table.columns)]
    lines = []
    if any(g for g, _ in groups):
        cells = "".join(f'<th colspan="{n}"{" class=over" if g else ""}>{escape(g)}</th>' for g, n in groups)
        lines.append(f'<tr><th colspan="{len(table.stubs)}"></th>{cells}{"<th></th>" * len(table.texts)}</tr>')
    stubs = "".join(f'<th class="text">{escape(s)}</th>' for s in table.stubs)
    heads = "".join(f"<th>{escape(c.title)}</th>" for c in table.columns)
    words = "".join(f'<th class="text">{escape(title)}</th>' for _, title in table.texts)
    return [*lines, f"<tr>{stubs}{heads}{words}</tr>"]


def _html(column: Column, cell: Cell | None, mark: Mark) -> str:
    wrap = {"best": "<b>{}</b>", "second": "<u>{}</u>", "": "{}"}[mark]
    return _set(column, cell, wrap.format, ' <span class="pm">±&#8239;{}</span>', "\u2212")
