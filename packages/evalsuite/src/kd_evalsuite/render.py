"""Templates of the report with their filters."""

from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from kd_evalsuite import safe, words


def render(template: str, context: Mapping[str, Any]) -> str:
    """A template of `kd_evalsuite.templates` as text.

    HTML is escaped save the figures; in every template each text loses its control characters; a missing name is an
    error. Markdown and LaTeX templates name their escaping: `| md`, `| tex`.
    """
    latex = template.endswith(".tex.jinja")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kd_evalsuite", "templates"),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(_LATEX if latex else {}),
    )
    environment.filters.update(
        number=words.number,
        signed=words.signed,
        p=words.p_value,
        interval=words.interval,
        title=words.title,
        md=safe.markdown,
        tex=safe.latex,
        texnum=_latex_number,
        clip=safe.clipped,
        line=safe.one_line,
    )
    return environment.get_template(template).render(context)


_LATEX: dict[str, Any] = {  # braces are LaTeX's own
    "block_start_string": "<%", "block_end_string": "%>", "variable_start_string": "<<", "variable_end_string": ">>",
    "comment_start_string": "<#", "comment_end_string": "#>",
}  # fmt: skip


def _latex_number(text: str) -> str:
    """A formatted number, interval or probability, with LaTeX's own minus and less-than."""
    return text.replace(words.MINUS, "$-$").replace("<", "$<$")


def _printable(value: Any) -> Any:
    return safe.printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
