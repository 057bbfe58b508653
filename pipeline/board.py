"""What a person sees of stages that run side by side: a line a stage, a bar of all."""

import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pipeline.order import Finished

WORDS = {
    "ran": "[green]done           [/]",
    "same": "[dim]done, as before[/]",
    "unchanged": "[dim]unchanged      [/]",
    "failed": "[red]failed         [/]",
    "held": "[yellow]not run        [/]",
}
LOG_LINES = 20


def console(*, stderr: bool = False) -> Console:
    """As wide as the terminal; in a file or a pipe, wide enough for the longest names."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 120)


class TerminalBoard:
    """Finished stages scroll by as lines; those that run are redrawn below with their time (on a terminal)."""

    def __init__(self, root: Path, shown_on: Console | None = None) -> None:
        self.root = root
        self.console = shown_on or console(stderr=True)
        self.running: dict[str, float] = {}
        self.live = Live(console=self.console, get_renderable=self._table, refresh_per_second=4, transient=True)

    def __enter__(self) -> "TerminalBoard":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def started(self, stage: str, log: Path) -> None:
        self.running[stage] = time.monotonic()

    def finished(self, end: Finished) -> None:
        self.running.pop(end.stage, None)
        why = f": {end.why}" if end.why else ""
        line = f"{end.seconds:5.0f} s  {WORDS[end.outcome]}  {escape(end.stage + why)}"
        self.console.print(line, highlight=False, soft_wrap=True)
        if end.outcome == "failed":
            shown = end.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            self.console.print("\n".join(shown), markup=False, highlight=False, soft_wrap=True)
            self.console.print(f"the whole log: {end.log.relative_to(self.root)}", highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for stage, since in list(self.running.items()):
            table.add_row(f"{now - since:5.0f} s", "[yellow]running[/]", stage)
        return table
