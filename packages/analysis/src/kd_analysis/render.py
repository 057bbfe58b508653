"""Templates of the report with the filters they use."""

from typing import Any

import jinja2
from markupsafe import Markup

from kd_analysis import words


def render(template: str, context: dict[str, Any]) -> str:
    """A template of `kd_analysis.templates` as text. HTML is escaped save the figures; a missing name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kd_analysis", "templates"),
        autoescape=jinja2.select_autoescape(["html.jinja", "html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=words.number,
        signed=words.signed,
        p=words.p_value,
        interval=words.interval,
        svg=Markup,
        cell=md_cell,
    )
    return environment.get_template(template).render(context)


def md_cell(text: object) -> str:
    """Text that cannot break a Markdown table or be taken for HTML."""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return escaped.replace("`", "\\`")
