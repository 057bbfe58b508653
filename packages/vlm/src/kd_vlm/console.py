"""What the commands share: options, the parameter file, exceptions to exit codes."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kd_vlm.config import Section

ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file; the section vlm is read.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one parameter; repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the parameters and say what would be done.")]
Fork = Annotated[
    bool, typer.Option("--fork", help="Go on with an unfinished run under changed parameters, as a run of its own.")
]
Requeue = Annotated[
    bool, typer.Option("--requeue", help="When stopped by a signal, exit with 75 (run again) in the place of 143.")
]
Out = Annotated[Path, typer.Option(help="Folder for the models; each goes into OUT/<cell>.")]
Runs = Annotated[Path, typer.Option(help="Folder for checkpoints of unfinished runs.")]


@contextmanager
def errors(*, requeue: bool = False) -> Iterator[None]:
    """Exceptions to one message and the exit code of contract/README.md; with `requeue`, 75 in the place of 143."""
    from kd_vlm.exits import REQUEUE, STOPPED, exit_code, message
    from kd_vlm.parent import end_with_dvc, print_anywhere

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


def load(params: Path, overrides: Sequence[str]) -> "Section":
    """The section `vlm` of a parameter file."""
    from kd_vlm.config import Section
    from kd_vlm.params import load_section

    return load_section(params, "vlm", Section, overrides)
