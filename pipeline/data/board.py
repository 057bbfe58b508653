"""Progress on the terminal: a bar a file while it comes, a line when it is there."""

from collections.abc import Callable
from types import TracebackType

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pipeline.board import console


def gigabytes(size: int) -> str:
    """Of bytes, with as many digits as say something."""
    return f"{size / 1e9:,.1f}" if size >= 1e8 else f"{size / 1e9:.6f}".rstrip("0").rstrip(".") or "0"


class Bar:
    """The bar of one file: called with bytes gained, ended with a line in its place."""

    def __init__(self, bars: Progress, task: TaskID, name: str) -> None:
        self._bars, self._task, self._name = bars, task, name

    def __call__(self, gained: int) -> None:
        self._bars.advance(self._task, gained)

    def end(self, note: str) -> None:
        """Remove it, and say how it ended."""
        self._bars.remove_task(self._task)
        self._bars.console.print(f"  {self._name}: {note}", highlight=False, markup=False, soft_wrap=True)


class Bars:
    """Bars on a terminal, lines alone elsewhere."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, name: str, total: int | None, done: int) -> "Bar":
        """A bar for `name`."""
        return Bar(self._bars, self._bars.add_task(name, total=total, completed=done), name)

    def reading(self, name: str) -> Callable[[int, int], None]:
        """A bar for files that are read: what is given back is called with bytes read and to read."""
        task = self._bars.add_task(f"reading {name}", total=None)
        return lambda done, total: self._bars.update(task, completed=done, total=total)
