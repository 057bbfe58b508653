"""What the commands show: progress, tables, errors. Everything that comes from outside is escaped."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from kd_evalsuite.records import Score, Scores
from kd_evalsuite.safe import printable

err = Console(stderr=True, highlight=False, emoji=False)
out = Console(highlight=False, emoji=False)
if not out.is_terminal:
    out = Console(highlight=False, emoji=False, width=110)


def plain(text: str) -> str:
    """Text from outside, safe on a terminal: no escape sequences, no control characters, no markup."""
    return escape(printable(text))


def bars() -> Progress:
    """Progress on standard error: name, bar, count, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description:>18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )


@contextmanager
def one_bar(progress: Progress, name: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar of `progress` that goes away when its work is done."""
    bar = progress.add_task(name, total=total, completed=done)
    try:
        yield lambda n: progress.advance(bar, n)
    finally:
        progress.remove_task(bar)


def score_table(scores: Scores) -> Table:
    """Main metrics with error, n, chance, unparsed replies and the favourite answer's share."""
    title = plain(scores.model.name) + (" (blind)" if scores.blind else "")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("benchmark", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("value", "±", "n", "chance", "unread", "top"):
        table.add_column(name, justify="right", no_wrap=True)
    for score in scores.scores:
        table.add_row(*_cells(score))
    table.caption = "± standard error; unread: replies without an answer; top: share of the favourite answer"
    return table


def _cells(s: Score) -> Sequence[str]:
    scale = 100.0 if s.best == 1 else 1.0
    return (
        s.benchmark,
        s.metric,
        f"{scale * s.value:.1f}" + ("" if s.best in (1, 100) else f" / {s.best:.0f}"),
        f"{scale * s.stderr:.1f}",
        str(s.n),
        "" if s.chance is None else f"{scale * s.chance:.1f}",
        str(s.n_unparsed),
        f"{s.top_answer_share:.0%}",
    )
