"""The command `distill`: parse, call, report."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil CLIP-style vision encoders.",
    rich_markup_mode=None,
)

ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file; the section distill is read.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one parameter; repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done.")]
Out = Annotated[Path, typer.Option(help="Folder for the models.")]
Runs = Annotated[Path, typer.Option(help="Folder for checkpoints of unfinished runs.")]


@contextmanager
def _errors() -> Iterator[None]:
    """Exceptions to one message and the exit code of contract/README.md."""
    from filelock import Timeout

    from kd_distill.tracking import IntegrityError

    codes = ((IntegrityError, 5), (FloatingPointError, 4), (Timeout, 7), ((ValueError, FileNotFoundError), 2))
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        for kind, code in codes:
            if isinstance(error, kind):
                typer.echo(str(error), err=True)
                raise typer.Exit(code) from None
        raise


@contextmanager
def _progress():  # noqa: ANN202
    """A function (what, done, of) that draws one bar for each `what`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        known: dict[str, int] = {}

        def update(what: str, done: int, of: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=of)
            bars.update(known[what], completed=done)

        yield update


def _load(params: Path, overrides: list[str]):  # noqa: ANN202
    from kd_distill.config import DistillParams
    from kd_distill.params import load_section

    return load_section(params, "distill", DistillParams, overrides)


@app.command(epilog="Example: distill run --params params.yaml --cell teacher-small --set recipes.pretrain.steps=50")
def run(
    params: ParamsFile = Path("params.yaml"),
    cell: Annotated[
        list[str], typer.Option(help="Train this cell; repeatable. Without it: all, and register them.")
    ] = [],  # noqa: B006
    out: Out = Path("models"),
    runs: Runs = Path("runs"),
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Train encoders: teachers, students with a teacher, students without."""
    with _errors():
        section = _load(params, overrides)
        unknown = set(cell) - set(section.cells)
        if unknown:
            raise ValueError(f"Unknown cell {sorted(unknown)}. Known: {', '.join(section.cells)}.")
        chosen = {name: section.cells[name] for name in cell or section.cells}
        if dry_run:
            _show_plan(section, chosen)
            return
        from kd_distill.run import run_all, train_cell

        with _progress() as progress:
            if not cell:
                run_all(chosen, section.recipes, section.data, out=out, runs=runs, progress=progress)
            for one in chosen.values() if cell else ():
                train_cell(one, section.recipes[one.recipe], section.data, out=out, runs=runs, progress=progress)


def _show_plan(section, chosen) -> None:  # noqa: ANN001
    from kd_distill.models import read_architecture
    from kd_distill.shards import PairShards

    shards = PairShards(section.data.train)
    for name, cell in chosen.items():
        recipe, embed_dim = section.recipes[cell.recipe], read_architecture(cell.architecture)["embed_dim"]
        epochs = recipe.steps * recipe.batch_size / len(shards)
        typer.echo(
            f"{name}: {cell.architecture} (width {embed_dim}), teacher {cell.teacher or 'none'}, "
            f"losses {dict(recipe.losses)}, {recipe.steps} steps of {recipe.batch_size} = {epochs:.1f} epochs"
        )


@app.command(epilog="Example: distill cache --params params.yaml --teacher refs/teacher-small.json")
def cache(
    teacher: Annotated[str, typer.Option(help="Reference file, models:/name or folder.")],
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Embed all pairs with a teacher, once for all of its students."""
    with _errors():
        section = _load(params, overrides)
        from kd_distill.run import make_cache
        from kd_distill.tracking import resolve

        with _progress() as progress:
            typer.echo(str(make_cache(section.data, resolve(teacher), progress)))


@app.command(epilog="Example: distill import-cache --name teacher-clip-b32 --image clip_b32.npy")
def import_cache(
    name: Annotated[str, typer.Option(help="The teacher, teacher-<id>.")],
    image: Annotated[Path, typer.Option(help="Image embeddings (pairs, d) as .npy, in the order of the shards.")],
    text: Annotated[
        Path | None, typer.Option(help="Caption embeddings; without them the cache serves fd_image.")
    ] = None,
    scale: Annotated[float, typer.Option(help="What the teacher multiplies its cosines with.")] = 100.0,
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Take embeddings that another program computed as a teacher's cache; of whole images, so views must be 1."""
    with _errors():
        section = _load(params, overrides)
        if name not in section.cached:
            raise ValueError(f"{name}: expected a teacher that `cached` names ({', '.join(section.cached) or 'none'}).")
        from kd_distill.importing import import_cache as write

        typer.echo(str(write(section.data, name, image, text, scale)))


@app.command(epilog="Example: distill register models/scratch/* --refs refs/scratch")
def register(
    folders: Annotated[list[Path], typer.Argument(help="What `distill run` wrote.")],
    refs: Annotated[Path | None, typer.Option(help="Folder to write references to, one file a model.")] = None,
) -> None:
    """Make MLflow hold the runs and the models of folders, and write their references."""
    with _errors():
        from kd_distill.journal import register as register_folder

        for folder in folders:
            model = register_folder(folder, refs and refs / f"{folder.name}.json")
            typer.echo(f"{model.name} {model.sha256[:12]}")


@app.command("architectures")
def list_architectures() -> None:
    """List the architectures that the package knows."""
    with _errors():
        from kd_distill.models import architectures

        for name in architectures():
            typer.echo(name)
