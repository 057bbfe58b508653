"""What all commands share: errors to exit codes, progress bars, options."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import typer

Out = Annotated[Path, typer.Option(help="Folder for the models.")]


class Bars(Protocol):
    """Draws one bar for each `what`."""

    def __call__(self, what: str, done: int, of: int) -> None: ...


@contextmanager
def errors(*, requeue: bool = False) -> Iterator[None]:
    """Exceptions to one message and the exit code of contract/README.md; with `requeue`, 75 in the place of 143."""
    from kd_distill.exits import REQUEUE, STOPPED, exit_code, message
    from kd_distill.parent import end_with_dvc, print_anywhere

    end_with_dvc()
    print_anywhere()
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (code := exit_code(error)) is None:
            raise
        typer.echo(message(error, code), err=True)
        raise typer.Exit(REQUEUE if requeue and code == STOPPED else code) from None


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Bars on stderr; under torchrun those of the first rank alone."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    first = os.environ.get("RANK", "0") == "0"
    with Progress(*columns, console=Console(stderr=True), disable=not first) as bars:
        known: dict[str, TaskID] = {}

        def update(what: str, done: int, of: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=of)
            bars.update(known[what], completed=done)

        yield update
