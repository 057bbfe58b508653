"""The command `evalsuite`. It parses and calls; what takes long is imported by the command that needs it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kd_evalsuite import cli_data, cli_results
from kd_evalsuite.options import Blind, DryRun, ModelOption, Out, Overrides, Params, Replace, guarded

app = typer.Typer(
    name="evalsuite",
    help="Score vision-language models on 16 benchmarks, and encoders on zero-shot classification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def main() -> None:
    """Score vision-language models on 16 benchmarks, and encoders on zero-shot classification."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@app.command("run")
@guarded
def run_command(
    model: ModelOption,
    out: Out,
    params: Params = Path("params.yaml"),
    blind: Blind = False,
    replace: Replace = False,
    overrides: Overrides = [],  # noqa: B006  # typer reads it, nothing writes to it
    dry_run: DryRun = False,
) -> None:
    """Predict, then score, into one folder.

    Example: evalsuite run --params params.yaml --model refs/vlm-x.json --out out/eval/vlm-x
    """
    from kd_evalsuite import commands, commands_data
    from kd_evalsuite.finding import find_model, load_params

    evaluated = load_params(params, overrides)
    commands.predict(evaluated, find_model(model), out, blind=blind, replace=replace, dry_run=dry_run)
    if not dry_run:
        commands_data.score(evaluated, [(out, out)])


@app.command("predict")
@guarded
def predict_command(
    out: Out,
    model: Annotated[str | None, typer.Option("--model", help="A reference file, models:/name, or a folder.")] = None,
    best_of: Annotated[
        Path | None, typer.Option("--best-of", help="Take the model with the highest Average in these scores.")
    ] = None,
    params: Params = Path("params.yaml"),
    blind: Blind = False,
    replace: Replace = False,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Ask a model every item; killed and run again, it goes on where it stopped.

    Examples:
    evalsuite predict --model refs/vlm-x.json --out out/predictions/vlm-x

    evalsuite predict --best-of out/eval --blind --out out/predictions/best-blind
    """
    from kd_evalsuite import commands
    from kd_evalsuite.finding import find_model, load_params

    if (model is None) == (best_of is None):
        raise ValueError("Expected one of --model and --best-of.")
    evaluated = load_params(params, overrides)
    found = find_model(model) if model is not None else commands.find_best(best_of or Path())
    commands.predict(evaluated, found, out, blind=blind, replace=replace, dry_run=dry_run)


@app.command("publish")
@guarded
def publish_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders with scores.json, or folders of such ones.")],
    dry_run: DryRun = False,
) -> None:
    """Record scores in MLflow and link them to the models; a second time changes nothing.

    Example: evalsuite publish out/eval out/zeroshot
    """
    from kd_evalsuite import commands

    commands.publish(folders, dry_run=dry_run)


app.add_typer(cli_data.app)
app.add_typer(cli_results.app)
