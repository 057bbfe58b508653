"""Options and errors that the commands share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Params = Annotated[Path, typer.Option("--params", help="YAML file with a section `evalsuite`.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one parameter, e.g. --set limit=20.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check parameters, model and data; say what would be done.")]
ModelOption = Annotated[str, typer.Option("--model", help="A reference file, models:/name, or a model's folder.")]
Out = Annotated[Path, typer.Option("--out", help="Where the results go.")]
Blind = Annotated[bool, typer.Option("--blind", help="Ask without the images.")]
Replace = Annotated[bool, typer.Option("--replace", help="Start over if --out holds predictions of something else.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Known errors become one message and an exit code: 2 input, 5 integrity, 7 lock, 130 interrupted."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        from kd_evalsuite.predictions import LockedError
        from kd_evalsuite.tracking import IntegrityError

        try:
            command(*args, **kwargs)
        except IntegrityError as error:
            fail(error, 5)
        except LockedError as error:
            fail(error, 7)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "kd_evalsuite":
                raise
            fail(f"{error}. Install what this command needs: pip install 'kd-evalsuite[torch,clip,mlflow]'.", 2)
        except (ValueError, FileNotFoundError) as error:  # ParamsError and DataError are ValueErrors
            fail(error, 2)
        except KeyboardInterrupt:
            fail("Interrupted. Predictions so far are kept; run the same command to go on.", 130)

    return run


def fail(error: object, code: int) -> None:
    """Say what went wrong and stop with an exit code."""
    from kd_evalsuite.view import err, plain

    err.print(f"[red]error:[/red] {plain(str(error))}", soft_wrap=True)
    raise typer.Exit(code)
