"""A comparison on the terminal."""

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kd_evalsuite.compare import Comparison, Difference
from kd_evalsuite.exhibits import Exhibit
from kd_evalsuite.safe import clipped, one_line, printable
from kd_evalsuite.words import MINUS, interval, letters, number, p_value, sentences, signed, title, verdict

WIDE = 106  # characters that all columns need
EXPLAINED = (
    "; detectable: a true difference found four times out of five; "
    "only: items (or pairs) on which only that model is better"
)
STYLES = {"not resolvable": "dim", "no item differs": "dim"}


def comparison_view(found: Comparison, width: int = WIDE) -> RenderableType:
    """Who is compared, what was found in words, one table a pair of models, alarms.

    Args:
        found: What to show.
        width: Of the terminal, in characters; a narrow one is not shown what a difference could have been.
    """
    names = letters(found.models)
    parts: list[RenderableType] = [Text(f"{sign}  {one_line(label)}") for label, sign in names.items()]
    for pair in found.pairs:
        parts += [Text(), *(Text(line) for line in sentences(found, pair, names)), _table(found, pair, names, width)]
    if found.left_out:
        counted = ", ".join(f"{n} of {key}" for key, n in found.left_out.items())
        parts.append(Text(f"left out, not answered by all: {counted}", style="yellow"))
    parts += [Text(f"! {names[a.model]} on {title(a.task)}: {a.says}", style="yellow") for a in found.alarms]
    return Group(*parts)


def _table(found: Comparison, pair: tuple[str, str], names: dict[str, str], width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    columns = _columns(names[pair[0]], names[pair[1]], f"{100 * found.how.level:.3g} % interval", width)
    for head in columns:
        table.add_column(head, justify="right" if head.strip() else "left", no_wrap=True)
    for some in (found.by_task, found.by_group, found.averages):
        mine = [d for d in some if (d.first, d.second) == pair]
        for d in mine:
            said = verdict(d, names)
            cells = [one_line(title(d.what)), *(cell(d) for head, cell in columns.items() if head.strip()), said]
            table.add_row(*cells, style=STYLES.get(said), end_section=d is mine[-1])
    table.caption = "points, percent of the best possible" + (EXPLAINED if width >= WIDE else "")
    table.caption_justify = "left"
    return table


def _columns(first: str, second: str, interval_head: str, width: int) -> dict[str, Callable[[Difference], str]]:
    """Heads and cells, between the task's name and the verdict, whose heads are empty."""
    found: dict[str, Callable[[Difference], str]] = {
        "": lambda d: "",
        first: lambda d: number(d.value_first),
        second: lambda d: number(d.value_second),
        f"{second} {MINUS} {first}": lambda d: signed(d.value),
        interval_head: interval,
        "p (Holm)": lambda d: p_value(d.p_holm),
    }
    if width >= WIDE:
        found["detectable"] = lambda d: number(d.detectable)
        found[f"{first} only"] = lambda d: str(d.only_first)
        found[f"{second} only"] = lambda d: str(d.only_second)
    found[" "] = lambda d: ""
    return found


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
