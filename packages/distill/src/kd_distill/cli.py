"""The command `distill`: parse, call, report."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

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
    from kd_distill.exits import exit_code

    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (code := exit_code(error)) is None:
            raise
        typer.echo(str(error), err=True)
        raise typer.Exit(code) from None


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
    columns = (*columns, TimeElapsedColumn(), TimeRemainingColumn())
    first = os.environ.get("RANK", "0") == "0"
    with Progress(*columns, console=Console(stderr=True), disable=not first) as bars:
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
    fork: Annotated[
        bool, typer.Option("--fork", help="Go on with an unfinished run under changed parameters, as a run of its own.")
    ] = False,
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
                train_cell(
                    one, section.recipes[one.recipe], section.data, out=out, runs=runs, progress=progress, fork=fork
                )


def _show_plan(section, chosen) -> None:  # noqa: ANN001
    from kd_distill.formats import open_pairs
    from kd_distill.models import read_architecture

    shards = open_pairs(section.data.train, section.data.index)
    per_epoch = sum(draws for _, draws in shards.parts)
    for name, cell in chosen.items():
        recipe, embed_dim = section.recipes[cell.recipe], read_architecture(cell.architecture)["embed_dim"]
        steps, _ = recipe.length(per_epoch)
        epochs = steps * recipe.batch_size / per_epoch
        typer.echo(
            f"{name}: {cell.architecture} (width {embed_dim}), teacher {'+'.join(cell.teachers) or 'none'}, "
            f"losses {dict(recipe.losses)}, {steps} steps of {recipe.batch_size} = {epochs:.1f} epochs"
        )


@app.command("validate-data", epilog="Example: distill validate-data --params params.yaml --set data.workers=4")
def validate_data(params: ParamsFile = Path("params.yaml"), overrides: Overrides = []) -> None:  # noqa: B006
    """Read every pair once and say what is wrong with the data; exit code 3 where too much of it is."""
    with _errors():
        section = _load(params, overrides)
        from kd_distill.checking import check_all
        from kd_distill.formats import open_pairs

        data = section.data
        sources = [open_pairs(part, data.index) for part in (data.train, data.val)]
        with _progress() as progress:
            for source in sources:
                bars = partial(progress, source.name, of=len(source))
                check_all(source, workers=data.workers, timeout=data.timeout, progress=bars)
        for source in sources:
            typer.echo(f"{source.name}: {len(source)} pairs indexed, {sum(source.counts().values())} cannot be used")
            for cause, count in source.counts().items():
                typer.echo(f"  {count} {cause}")
        for source in sources:
            source.refuse_too_many(data.bad_limit)


@app.command(epilog="Example: distill cache --params params.yaml --teacher refs/teacher-small.json --shard 2/4")
def cache(
    teacher: Annotated[str, typer.Option(help="Reference file, models:/name or folder.")],
    patches: Annotated[
        bool, typer.Option("--patches", help="Keep patch tokens too, for the losses that read them.")
    ] = False,
    precision: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Of the teacher's towers.")] = "fp32",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="This process does every N-th file, from the I-th on.")
    ] = "1/1",
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of a cache of something else.")
    ] = False,
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Embed all pairs with a teacher, once for all of its students; called again it computes what is missing."""
    with _errors():
        section, part = _load(params, overrides), re.fullmatch(r"(\d+)/(\d+)", shard)
        if part is None:
            raise ValueError(f"--shard: expected I/N, for example 2/4, got {shard!r}.")
        from kd_distill.teaching import make_cache
        from kd_distill.tracking import resolve

        with _progress() as progress:
            folder = make_cache(
                section.data,
                resolve(teacher),
                progress,
                patches=patches,
                precision=precision,
                part=(int(part[1]), int(part[2])),
                replace=replace,
            )
        typer.echo(str(folder) if folder else f"Part {shard} is done; the cache is complete when all others are.")


@app.command(epilog="Example: distill cache-verify teacher-small --rows 16")
def cache_verify(
    name: Annotated[str, typer.Argument(help="The teacher, teacher-<id>.")],
    rows: Annotated[int, typer.Option(min=0, help="Pairs that the teacher embeds again.")] = 8,
    teacher: Annotated[str | None, typer.Option(help="Where the teacher is, if not where the cache says.")] = None,
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Check every file of a teacher's cache, and compute some rows again; exits with 5 where they differ."""
    with _errors():
        section = _load(params, overrides)
        from kd_distill.teaching import verify_cache

        files, again = verify_cache(section.data, name, rows, teacher)
        typer.echo(f"{name}: {files} files are as they were written, {again} rows are what the teacher gives")


@app.command(epilog="Example: distill import-cache --name teacher-clip-b32 --image clip_b32.npy")
def import_cache(
    name: Annotated[str, typer.Option(help="The teacher, teacher-<id>.")],
    image: Annotated[Path, typer.Option(help="Image embeddings (pairs, d) as .npy, in the order of the shards.")],
    text: Annotated[
        Path | None, typer.Option(help="Caption embeddings; without them the cache serves fd_image.")
    ] = None,
    scale: Annotated[float, typer.Option(help="What the teacher multiplies its cosines with.")] = 100.0,
    bias: Annotated[float, typer.Option(help="What the teacher adds to them.")] = 0.0,
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Take embeddings that another program computed as a teacher's cache; of whole images, so views must be 1."""
    with _errors():
        section = _load(params, overrides)
        if name not in section.cached:
            raise ValueError(f"{name}: expected a teacher that `cached` names ({', '.join(section.cached) or 'none'}).")
        from kd_distill.importing import import_cache as write

        typer.echo(str(write(section.data, name, image, text, scale, bias)))


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


@app.command(epilog="Example: distill sync runs models")
def sync(folders: Annotated[list[Path], typer.Argument(help="Looked through for journals.")]) -> None:
    """Send MLflow what it lacks of the journals in folders: after it was down, or from another machine."""
    with _errors():
        from kd_distill.shipping import send_all

        for name, events in send_all(folders):
            typer.echo(f"{name}: {events} events sent")


@app.command("architectures")
def list_architectures() -> None:
    """List the architectures that the package knows."""
    with _errors():
        from kd_distill.models import architectures

        for name in architectures():
            typer.echo(name)


@app.command(epilog="Example: distill fetch clip-b16 --out models/teachers --download")
def fetch(
    names: Annotated[list[str], typer.Argument(help="Teachers by name; `distill teachers` lists them.")],
    out: Out = Path("models/teachers"),
    download: Annotated[bool, typer.Option("--download", help="Ask the hub; without it nothing is sent.")] = False,
    source: Annotated[Path | None, typer.Option("--from", help="A copy of the hub folder, for one teacher.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of the hub folder.")] = None,
) -> None:
    """Bring teachers from the hub as model folders, checked against the table; then `distill register` them."""
    with _errors():
        from kd_distill.fetch import fetch as bring
        from kd_distill.teachers import teacher_named

        chosen = [teacher_named(name) for name in names]
        if source and len(chosen) > 1:
            raise ValueError(f"--from holds one teacher, got {len(chosen)} names.")
        for teacher in chosen:
            typer.echo(str(bring(teacher, out, download=download, source=source, revision=revision)))


@app.command(
    epilog="Example: distill doctor models:/teacher-clip-l14    (a bare clip-l14 checks its construction alone)"
)
def doctor(
    teacher: Annotated[str, typer.Argument(help="Folder, reference file or models:/name; or a name, without weights.")],
    promised: Annotated[
        str | None, typer.Option("--as", help="What it should be; else its name teacher-<name>.")
    ] = None,
    stored: Annotated[Path | None, typer.Option("--reference", help="Its numbers; else reference.json inside.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Folder of pictures, a folder a class, for zero-shot.")] = None,
    at_least: Annotated[float | None, typer.Option(min=0, max=1, help="Top-1 to reach; else twice chance.")] = None,
    write_reference: Annotated[Path | None, typer.Option(help="Write its numbers here, if all else is well.")] = None,
) -> None:
    """Check that a teacher is what its name says, before a run depends on it."""
    with _errors():
        from kd_distill import doctor as examination
        from kd_distill import reference
        from kd_distill.teachers import TEACHERS, teacher_named
        from kd_distill.tracking import resolve

        if teacher in TEACHERS:
            _report(f"{teacher}, construction without weights", examination.construction(TEACHERS[teacher]))
            return
        model = resolve(teacher)
        known = {t.registered: t for t in TEACHERS.values()}
        expected = teacher_named(promised) if promised else known.get(model.name)
        if not (write_reference and expected is None and stored is None and classes is None):
            checks = examination.examine(model.path, expected, stored=stored, classes=classes, at_least=at_least)
            _report(f"{model.name} as {expected.name if expected else 'itself'}", checks)
        if write_reference:
            reference.write(model.path, write_reference)


def _report(title: str, checks) -> None:  # noqa: ANN001
    """A table of checks; ValueError if one failed."""
    from rich.console import Console
    from rich.table import Table

    from kd_distill.doctor import refuse

    table = Table("", "check", "expected", "came", title=title)
    for check in checks:
        table.add_row("ok" if check.ok else "FAILED", check.what, check.expected, check.came)
    Console().print(table)
    refuse(title, checks)


@app.command("teachers")
def list_teachers() -> None:
    """List the teachers that the package knows."""
    from rich.console import Console
    from rich.table import Table

    from kd_distill.teachers import TEACHERS

    table = Table("name", "paper", "hub", "image parameters", "embedding", "pixels", "patches")
    for t in TEACHERS.values():
        row = (f"{t.image_parameters:,}", str(t.config["embed_dim"]), str(t.preprocessing.size))
        table.add_row(t.name, t.label, t.hub, *row, f"{t.grid[0]} x {t.grid[1]} x {t.grid[2]}")
    Console().print(table)
