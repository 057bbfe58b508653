"""Commands about models that are not trained here: architectures and teachers by name, fetched and examined."""

from pathlib import Path
from typing import Annotated

import typer

from kd_distill.console import Out, errors

app = typer.Typer(rich_markup_mode=None)
Table = Annotated[Path | None, typer.Option("--table", help="Teachers beside the package's, YAML; see teachers.py.")]


@app.command("architectures")
def list_architectures() -> None:
    """List the architectures that the package knows."""
    with errors():
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
    table: Table = None,
) -> None:
    """Bring teachers from the hub as model folders, checked against the table; then `distill register` them."""
    with errors():
        from kd_distill.fetch import fetch as bring
        from kd_distill.teachers import teacher_named

        chosen = [teacher_named(name, table) for name in names]
        if source and len(chosen) > 1:
            raise ValueError(f"--from holds one teacher, got {len(chosen)} names.")
        for teacher in chosen:
            typer.echo(str(bring(teacher, out, download=download, source=source, revision=revision)))


@app.command(
    epilog="Example: distill adopt ViT-T-16.pt --architecture vit-t-16 --name student-vit-t-16--clip-b16--released"
)
def adopt(
    weights: Annotated[Path, typer.Argument(help="A file of weights: .safetensors, or torch's, of tensors alone.")],
    architecture: Annotated[str, typer.Option(help="By name, or the path of a JSON file.")],
    name: Annotated[str, typer.Option(help="Registered name of the model.")],
    out: Out = Path("models/adopted"),
) -> None:
    """Take weights that somebody published as a file, as a model folder; then `distill register` it."""
    with errors():
        from kd_distill.adopt import adopt as take

        typer.echo(str(take(weights, architecture, name, out)))


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
    table: Table = None,
) -> None:
    """Check that a teacher is what its name says, before a run depends on it."""
    with errors():
        from kd_distill import doctor as examination
        from kd_distill import reference
        from kd_distill.teachers import teacher_named, teachers_of
        from kd_distill.tracking import resolve

        if teacher in (known := teachers_of(table)):
            _report(f"{teacher}, construction without weights", examination.construction(known[teacher]))
            return
        model = resolve(teacher)
        registered = {t.registered: t for t in known.values()}
        expected = teacher_named(promised, table) if promised else registered.get(model.name)
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
