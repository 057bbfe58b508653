"""What was found in a published table, on the terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kd_evalsuite.forensics import DECISIVE, Examined, Fit, Part
from kd_evalsuite.printed import Printed
from kd_evalsuite.safe import one_line
from kd_evalsuite.suspicions import Finding, check_average


def forensics_view(table: Printed, examined: Sequence[Examined], findings: Sequence[Finding]) -> RenderableType:
    """The columns with what their digits allow, then the findings."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("column", "rows"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("values", justify="right", no_wrap=True)
    shown.add_column("counts that explain every value")
    for one in examined:
        column = one.column
        name, values = one_line(column.name), f"{min(column.values)} to {max(column.values)}"
        shown.add_row(name, str(len(column.values)), values, Text(_says(one, one.whole)))
        for part in one.parts:
            shown.add_row("", str(part.rows), "", Text(f"{one_line(part.where)}: {_says(one, part)}"))
    parts: list[RenderableType] = [shown]
    if check := check_average(table):
        text = (
            f"{check.agree} of {check.rows} averages are the mean of {check.columns} columns in percent of their scale"
        )
        text += f" (largest deviation {check.largest:.4f}, rounding allows {check.allowed:.4f})"
        parts.append(Text(text))
    if table.ignored:
        parts.append(Text(f"not looked at: {', '.join(map(one_line, table.ignored))}", style="dim"))
    parts += [Text(f"! {one_line(f.column)}: {one_line(f.says)}", style="yellow") for f in findings]
    if not findings:
        parts.append(Text("nothing found"))
    return Group(*parts)


def _says(one: Examined, part: Part) -> str:
    if one.column.known.kind == "sum":
        return "a sum over categories: no fraction of one count"
    if one.column.known.kind == "graded":
        return "items can be partly right: no fraction of a count"
    if not part.power or (part.own and min(fit.luck for fit in part.own) > DECISIVE):
        return f"cannot tell: {_listed(one)} items can print these and most other values"
    if part.own:
        return ", ".join(map(_fit, part.own))
    if one.parts and part is one.whole:
        return f"no known count for all rows together; by {one_line(one.split_by)}:"
    if part.foreign:
        return "none of its own; " + ", ".join(map(_fit, part.foreign))
    if part.n_scanned:
        more = f" and {part.n_scanned - len(part.scanned)} more" if part.n_scanned > len(part.scanned) else ""
        return f"none known; {', '.join(map(str, part.scanned))}{more} would fit ({part.by_luck:.2g} by luck)"
    return "none"


def _listed(one: Examined) -> str:
    return " or ".join(map(str, one.column.known.counts))


def _fit(fit: Fit) -> str:
    return f"{fit.n} ({fit.what}; luck {fit.luck:.1g})"


def forensics_json(table: Printed, examined: Sequence[Examined], findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for a program."""
    check = check_average(table)
    return {
        "schema": "kd-forensics/1",
        "columns": [
            {
                "column": one.column.name,
                "benchmark": one.column.benchmark,
                "decimals": one.column.decimals,
                "scale": one.column.known.scale,
                "kind": one.column.known.kind,
                "candidates": {str(n): what for n, what in one.column.known.counts.items()},
                "whole": asdict(one.whole),
                "split_by": one.split_by,
                "parts": [asdict(part) for part in one.parts],
            }
            for one in examined
        ],
        "average": asdict(check) if check else None,
        "ignored": list(table.ignored),
        "findings": [asdict(f) for f in findings],
    }
