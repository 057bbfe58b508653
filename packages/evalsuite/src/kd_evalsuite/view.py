"""What the commands show: progress, tables, errors. Everything that comes from outside is escaped."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from kd_evalsuite.records import Score, Scores

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def plain(text: str) -> str:
    """Text from outside, safe on a terminal: no control characters, no markup."""
    return escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text))


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
    table = Table(title=title, title_justify="left")
    for name in ("benchmark", "metric"):
        table.add_column(name)
    for name in ("value", "± s.e.", "best", "n", "chance", "unparsed", "favourite"):
        table.add_column(name, justify="right")
    for score in scores.scores:
        table.add_row(*_cells(score))
    return table


def _cells(s: Score) -> Sequence[str]:
    scale, digits = (100.0, 1) if s.best == 1 else (1.0, 1)
    return (
        s.benchmark,
        s.metric,
        f"{scale * s.value:.{digits}f}",
        f"{scale * s.stderr:.{digits}f}",
        f"{scale * s.best:.0f}",
        str(s.n),
        "" if s.chance is None else f"{scale * s.chance:.{digits}f}",
        str(s.n_unparsed),
        f"{s.top_answer_share:.0%}",
    )
