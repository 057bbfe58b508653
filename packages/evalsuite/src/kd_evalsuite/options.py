"""Options and errors that the commands share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kd_evalsuite.durable import storage_trouble

Params = Annotated[Path, typer.Option("--params", help="YAML file with a section `evalsuite`.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one parameter, e.g. --set limit=20.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check parameters, model and data; say what would be done.")]
ModelOption = Annotated[str, typer.Option("--model", help="A reference file, models:/name, or a model's folder.")]
Out = Annotated[Path, typer.Option("--out", help="Where the results go.")]
Blind = Annotated[bool, typer.Option("--blind", help="Ask without the images.")]
Replace = Annotated[bool, typer.Option("--replace", help="Start over if --out holds predictions of something else.")]


EXTRAS = {  # module -> the extra that brings it
    "torch": "torch", "transformers": "torch", "timm": "torch", "safetensors": "torch", "open_clip": "clip",
    "mlflow": "mlflow", "httpx": "api", "tenacity": "api", "huggingface_hub": "hub",
}  # fmt: skip


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Known errors become one message and an exit code.

    1 items without a reply, 2 input, 5 integrity, 6 storage, 7 lock, 130 interrupted.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except Exception as error:
            if (code := _code(error)) is None:
                raise
            fail(_said(error), code)
        except KeyboardInterrupt:
            fail("Interrupted. Predictions so far are kept; run the same command to go on.", 130)

    return run


def _code(error: Exception) -> int | None:
    """The exit code of an error that is known; None of one that is a fault of this program."""
    from kd_evalsuite.asking import ModelFailedError
    from kd_evalsuite.predictions import LockedError
    from kd_evalsuite.sharding import IncompleteError
    from kd_evalsuite.tracking import IntegrityError

    codes: dict[type[Exception], int] = {ModelFailedError: 1, IncompleteError: 1, IntegrityError: 5, LockedError: 7}
    for kind, code in codes.items():
        if isinstance(error, kind):
            return code
    if storage_trouble(error):
        return 6
    if isinstance(error, ModuleNotFoundError):
        return None if (error.name or "").split(".")[0] == "kd_evalsuite" else 2
    return 2 if isinstance(error, ValueError | FileNotFoundError) else None  # ParamsError and DataError are ValueErrors


def _said(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").split(".")[0])
        return f"{error}. Install what this command needs: pip install 'kd-evalsuite[{extra or 'torch,clip,mlflow'}]'."
    return storage_trouble(error) or str(error)


def fail(error: object, code: int) -> None:
    """Say what went wrong and stop with an exit code."""
    from kd_evalsuite.view import err, plain

    err.print(f"[red]error:[/red] {plain(str(error))}", soft_wrap=True)
    raise typer.Exit(code)
