"""The command `distill`: parse, call, report."""

import re
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kd_distill import cli_teachers
from kd_distill.console import Out, errors, progress_bars
from kd_distill.layers import PatchLayer
from kd_distill.precision import Precision

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil CLIP-style vision encoders.",
    rich_markup_mode=None,
)

ParamsFile = Annotated[Path, typer.Option("--params", help="Parameter file; the section distill is read.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one parameter; repeatable.")]
Mix = Annotated[str | None, typer.Option(help="A set of data.mixes in the place of data.train.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done.")]
Runs = Annotated[Path, typer.Option(help="Folder for checkpoints of unfinished runs.")]


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
    requeue: Annotated[
        bool, typer.Option("--requeue", help="When stopped by a signal, exit with 75 (run again) in the place of 143.")
    ] = False,
    ranks_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that processes of torchrun wait for each other.")
    ] = 600.0,
) -> None:
    """Train encoders: teachers, students with a teacher, students without."""
    with errors(requeue=requeue):
        section = _load(params, overrides)
        unknown = set(cell) - set(section.cells)
        if unknown:
            raise ValueError(f"Unknown cell {sorted(unknown)}. Known: {', '.join(section.cells)}.")
        chosen = {name: section.cells[name] for name in cell or section.cells}
        if dry_run:
            _show_plan(section, chosen)
            return
        from kd_distill.run import run_all, train_cell

        with progress_bars() as progress:
            if not cell:
                run_all(chosen, section.recipes, section.data, out=out, runs=runs, progress=progress)
            for one in chosen.values() if cell else ():
                train_cell(
                    one,
                    section.recipes[one.recipe],
                    section.data,
                    out=out,
                    runs=runs,
                    progress=progress,
                    fork=fork,
                    ranks_timeout=timedelta(seconds=ranks_timeout),
                )


def _show_plan(section, chosen) -> None:  # noqa: ANN001
    from kd_distill.formats import open_pairs
    from kd_distill.models import read_architecture
    from kd_distill.sources import epoch_of

    for name, cell in chosen.items():
        recipe, embed_dim = section.recipes[cell.recipe], read_architecture(cell.architecture)["embed_dim"]
        data = section.data.of(recipe.mix)
        per_epoch = epoch_of(open_pairs(data.train, data.index, data.network))
        steps, _ = recipe.length(per_epoch)
        epochs = steps * recipe.batch_size / per_epoch
        typer.echo(
            f"{name}: {cell.architecture} (width {embed_dim}), teacher {cell.taught_by}, "
            f"losses {dict(recipe.losses)}, {steps} steps of {recipe.batch_size} = {epochs:.1f} epochs"
        )


@app.command("validate-data", epilog="Example: distill validate-data --params params.yaml --set data.workers=4")
def validate_data(params: ParamsFile = Path("params.yaml"), overrides: Overrides = []) -> None:  # noqa: B006
    """Read every pair once and say what is wrong with the data; exit code 3 where too much of it is."""
    with errors():
        section = _load(params, overrides)
        from kd_distill.checking import check_all
        from kd_distill.formats import open_pairs

        data = section.data
        with progress_bars() as progress:
            sets = (data.train, data.val, *data.mixes.values())
            sources = [open_pairs(each, data.index, data.network, progress) for each in sets]
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
        PatchLayer | None,
        typer.Option(
            help="Keep patch tokens of this layer too, for losses that read them; see the recipe's patch_layer."
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the teacher's towers.")] = "fp32",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="This process does every N-th file, from the I-th on.")
    ] = "1/1",
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of a cache of something else.")
    ] = False,
    mix: Mix = None,
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Embed all pairs with a teacher, once for all of its students; called again it computes what is missing."""
    with errors():
        section, part = _load(params, overrides), re.fullmatch(r"(\d+)/(\d+)", shard)
        if part is None:
            raise ValueError(f"--shard: expected I/N, for example 2/4, got {shard!r}.")
        from kd_distill.teaching import make_cache
        from kd_distill.tracking import resolve

        with progress_bars() as progress:
            folder = make_cache(
                section.data.of(mix),
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
    mix: Mix = None,
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Check every file of a teacher's cache, and compute some rows again; exits with 5 where they differ."""
    with errors():
        section = _load(params, overrides)
        from kd_distill.teaching import verify_cache

        files, again = verify_cache(section.data.of(mix), name, rows, teacher)
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
    mix: Mix = None,
    params: ParamsFile = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Take embeddings that another program computed as a teacher's cache; of whole images, so views must be 1."""
    with errors():
        section = _load(params, overrides)
        if name not in section.cached:
            raise ValueError(f"{name}: expected a teacher that `cached` names ({', '.join(section.cached) or 'none'}).")
        from kd_distill.importing import import_cache as write

        typer.echo(str(write(section.data.of(mix), name, image, text, scale, bias)))


@app.command(epilog="Example: distill register models/scratch/* --refs refs/scratch")
def register(
    folders: Annotated[list[Path], typer.Argument(help="What `distill run` wrote.")],
    refs: Annotated[Path | None, typer.Option(help="Folder to write references to, one file a model.")] = None,
) -> None:
    """Make MLflow hold the runs and the models of folders, and write their references."""
    with errors():
        from kd_distill.journal import register as register_folder

        for folder in folders:
            model = register_folder(folder, refs and refs / f"{folder.name}.json")
            typer.echo(f"{model.name} {model.sha256[:12]}")


@app.command(epilog="Example: distill sync runs models")
def sync(folders: Annotated[list[Path], typer.Argument(help="Looked through for journals.")]) -> None:
    """Send MLflow what it lacks of the journals in folders: after it was down, or from another machine."""
    with errors():
        from kd_distill.shipping import send_all

        for name, events in send_all(folders):
            typer.echo(f"{name}: {events} events sent")


app.add_typer(cli_teachers.app)
