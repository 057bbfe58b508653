"""The command `vlm`: parse, call, report."""

from pathlib import Path
from typing import Annotated

import typer

from kd_vlm import cli_data, cli_models, cli_recipes, cli_sweep
from kd_vlm.console import DryRun, Fork, Out, Overrides, ParamsFile, Requeue, Runs, errors, load

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Put vision encoders into LLaVA-style VLMs and train those.",
)


@app.command(
    epilog="Example: vlm run --params params.yaml --cell vlm-teacher-small--small--tinyllava "
    "--set recipes.tinyllava.finetune.epochs=2"
)
def run(
    params: ParamsFile = Path("params.yaml"),
    cell: Annotated[list[str], typer.Option(help="Train this cell; repeatable. Without it: all.")] = [],  # noqa: B006
    out: Out = Path("models"),
    runs: Runs = Path("runs"),
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    fork: Fork = False,
    requeue: Requeue = False,
) -> None:
    """Train VLMs: pretrain the projector, then finetune projector and language model."""
    with errors(requeue=requeue):
        section = load(params, overrides)
        chosen = {name: section.cell(name) for name in cell or section.cells}
        if dry_run:
            for name, one in chosen.items():
                typer.echo(
                    f"{name}: {one.encoder} + {one.lm}, recipe {one.recipe}, seed {section.seed(one)} -> {out / name}"
                )
            models = (model for one in chosen.values() for model in (one.encoder, one.lm) if ":" not in model)
            for path in dict.fromkeys((*map(Path, models), *section.data.places)):
                if not path.exists():
                    typer.echo(f"not there yet: {path}", err=True)
            return
        from kd_vlm.job import Job
        from kd_vlm.run import Habits, run_vlm
        from kd_vlm.sources import resolve

        habits = Habits(**section.habits)
        for name, one in chosen.items():
            recipe, seed = section.recipe(one.recipe), section.seed(one)
            job = Job(name, resolve(one.encoder), resolve(one.lm), one.recipe, recipe, seed)
            run_vlm(job, section.data, out=out / name, runs=runs, habits=habits, fork=fork)
            typer.echo(str(out / name))


@app.command(epilog="Example: vlm lm --params params.yaml --cell lm-small --set lms.lm-small.epochs=0.5")
def lm(
    params: ParamsFile = Path("params.yaml"),
    cell: Annotated[list[str], typer.Option(help="Train this one; repeatable. Without it: all.")] = [],  # noqa: B006
    out: Out = Path("models"),
    runs: Runs = Path("runs"),
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    requeue: Requeue = False,
) -> None:
    """Train small language models with their tokenizers on the world's text."""
    with errors(requeue=requeue):
        section = load(params, overrides)
        chosen = {name: section.language_model(name) for name in cell or section.lms}
        if dry_run:
            for name, one in chosen.items():
                typer.echo(f"{name}: {one.layers} layers of width {one.width}, {one.epochs} epochs -> {out / name}")
            return
        from kd_vlm.lock import sole_writer
        from kd_vlm.run_lm import run_lm

        for name, one in chosen.items():
            with sole_writer(out / name):
                run_lm(name, one, section.text, out=out / name, runs=runs, save_every=section.save_every)
            typer.echo(str(out / name))


@app.command(epilog="Example: vlm register models/vlms/* --refs refs/vlms")
def register(
    folders: Annotated[list[Path], typer.Argument(help="What `vlm run`, `vlm lm` or `vlm export` wrote.")],
    name: Annotated[
        str | None, typer.Option(help="Of a folder without a journal, such as an export; else the folder's own name.")
    ] = None,
    refs: Annotated[Path | None, typer.Option(help="Folder to write references to, one file a model.")] = None,
) -> None:
    """Make MLflow hold the runs and the models of folders, and write their references."""
    with errors():
        from kd_vlm.adopting import adopt
        from kd_vlm.journal import register as register_folder
        from kd_vlm.tracking import JOURNAL

        for folder in folders:
            if not (folder / JOURNAL).is_file():
                adopt(folder, name or folder.name)
            model = register_folder(folder, refs and refs / f"{folder.name}.json")
            typer.echo(f"{model.name} {model.sha256[:12]}")


@app.command(epilog="Example: vlm sync runs models")
def sync(folders: Annotated[list[Path], typer.Argument(help="Looked through for journals.")]) -> None:
    """Send MLflow what it lacks of the journals in folders: after it was down, or from another machine."""
    with errors():
        from kd_vlm.shipping import send_all

        for name, events in send_all(folders):
            typer.echo(f"{name}: {events} events sent")


app.command(epilog=cli_sweep.EXAMPLE)(cli_sweep.sweep)
app.command(epilog=cli_data.EXAMPLE)(cli_data.validate)
app.command(epilog="Example: vlm unpack llava.parquet --images data/images --out data/llava.jsonl")(cli_data.unpack)
app.command(epilog="Example: vlm caches runs/vision --verify")(cli_data.caches)
app.add_typer(cli_recipes.app, name="recipes")
app.add_typer(cli_models.app)

if __name__ == "__main__":
    app()
