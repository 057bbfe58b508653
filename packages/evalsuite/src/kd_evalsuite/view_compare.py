"""A comparison on the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kd_evalsuite.compare import Comparison, Difference
from kd_evalsuite.exhibits import Exhibit
from kd_evalsuite.safe import clipped, one_line, printable
from kd_evalsuite.words import MINUS, interval, letters, number, p_value, sentences, signed, title, verdict

STYLES = {"not resolvable": "dim", "no item differs": "dim"}


def comparison_view(found: Comparison) -> RenderableType:
    """Who is compared, what was found in words, one table a pair of models, alarms."""
    names = letters(found.models)
    parts: list[RenderableType] = [Text(f"{sign}  {one_line(label)}") for label, sign in names.items()]
    for pair in found.pairs:
        parts += [Text(), *(Text(line) for line in sentences(found, pair, names)), _table(found, pair, names)]
    if found.left_out:
        parts.append(Text("left out, not answered by all: " + _counted(found.left_out), style="yellow"))
    parts += [Text(f"! {names[a.model]} on {title(a.task)}: {a.says}", style="yellow") for a in found.alarms]
    return Group(*parts)


def _counted(numbers: dict[str, int]) -> str:
    return ", ".join(f"{n} of {key}" for key, n in numbers.items())


def _table(found: Comparison, pair: tuple[str, str], names: dict[str, str]) -> Table:
    first, second = (names[label] for label in pair)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    heads = [
        first,
        second,
        f"{second} {MINUS} {first}",
        f"{100 * found.how.level:.3g} % interval",
        "p (Holm)",
        "detectable",
    ]
    for head in (*heads, f"{first} only", f"{second} only"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for some in (found.by_task, found.by_group, found.averages):
        mine = [d for d in some if (d.first, d.second) == pair]
        for d in mine:
            table.add_row(*_cells(d, names), style=STYLES.get(verdict(d, names)), end_section=d is mine[-1])
    table.caption = (
        "points, percent of the best possible; detectable: a true difference found four times out of five; "
        "only: items (or pairs) on which only that model is better"
    )
    table.caption_justify = "left"
    return table


def _cells(d: Difference, names: dict[str, str]) -> Sequence[str]:
    values = (number(d.value_first), number(d.value_second), signed(d.value), interval(d), p_value(d.p_holm))
    return (
        one_line(title(d.what)),
        *values,
        number(d.detectable),
        str(d.only_first),
        str(d.only_second),
        verdict(d, names),
    )


def flips_view(exhibits: Sequence[Exhibit], names: dict[str, str], head: str) -> RenderableType:
    """Items to look at: the question, the gold answer and what each model said, where these are at hand."""
    parts: list[RenderableType] = [Text(head, style="bold")]
    for one in exhibits:
        parts.append(
            Text(f"  {one_line(one.id)}" + (f"   gold: {one_line(one.gold)}" if one.gold else ""), style="cyan")
        )
        if one.prompt:
            lines = printable(clipped(one.prompt, 600)).splitlines()
            parts.append(Text("\n".join(f"    {line}" for line in lines), style="dim"))
        for a in one.answered:
            said = "reply not at hand" if a.reply is None else f"“{clipped(one_line(a.reply), 160)}”"
            unread = " (no answer read)" if a.reply is not None and a.answer is None else ""
            parts.append(Text(f"    {names[a.model]} {number(100 * a.score, 0):>3}  {said}{unread}"))
    return Group(*parts)
