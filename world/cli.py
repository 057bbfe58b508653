"""`python -m world`: generate the world."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from contract.shared.durable import storage_trouble
from contract.shared.lock import LockHeldError
from contract.shared.params import ParamsError, load_section
from contract.shared.parent import end_with_dvc, print_anywhere

if TYPE_CHECKING:
    from world.params import WorldParams

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    params: Annotated[Path, typer.Option(help="File with a section `world`.")] = Path("params.yaml"),
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier world there is replaced.")] = Path(
        "data/world"
    ),
    set_: Annotated[list[str] | None, typer.Option("--set", help="key.path=value within the section.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Check the parameters, list the parts, write nothing.")] = False,
) -> None:
    """Generate the small world: image-text pairs, a classification set, conversations, text and 16 benchmarks.

    The same parameters give the same bytes on every machine.

    Examples:
        python -m world --params params.yaml

        python -m world --params params.yaml --out data/tiny --set pairs.train=200 --set workers=1
    """
    end_with_dvc()
    print_anywhere()
    from world.build import check_replaceable, jobs  # drawing libraries load only when needed
    from world.params import WorldParams

    console = Console(stderr=True)
    try:
        section = load_section(params, "world", WorldParams, set_ or ())
        check_replaceable(out)
    except (ParamsError, ValueError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    todo = [job.name for job in jobs(section)]
    if dry_run:
        typer.echo("\n".join(todo))
        return
    try:
        _build(section, out, len(todo), console)
    except KeyboardInterrupt:
        console.print(f"Interrupted. {out} is as it was; run again to start over.", style="red", highlight=False)
        raise typer.Exit(130) from None
    except LockHeldError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(7) from None
    except OSError as error:
        if (said := storage_trouble(error)) is None:
            raise
        console.print(said, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(6) from None
    typer.echo(out)


def _build(section: "WorldParams", out: Path, parts: int, console: Console) -> None:
    from world.build import build

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("world", total=parts)
        for name in build(section, out):
            progress.update(bar, advance=1, description=f"world: {name}")
