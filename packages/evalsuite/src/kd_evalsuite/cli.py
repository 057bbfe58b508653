"""The command `evalsuite`. It parses and calls; what takes long is imported by the command that needs it."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="evalsuite",
    help="Score vision-language models on 16 benchmarks, and encoders on zero-shot classification.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

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
            _fail(error, 5)
        except LockedError as error:
            _fail(error, 7)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "kd_evalsuite":
                raise
            _fail(f"{error}. Install what this command needs: pip install 'kd-evalsuite[torch,clip,mlflow]'.", 2)
        except (ValueError, FileNotFoundError) as error:  # ParamsError and DataError are ValueErrors
            _fail(error, 2)
        except KeyboardInterrupt:
            _fail("Interrupted. Predictions so far are kept; run the same command to go on.", 130)

    return run


def _fail(error: object, code: int) -> None:
    from kd_evalsuite.view import err, plain

    err.print(f"[red]error:[/red] {plain(str(error))}", soft_wrap=True)
    raise typer.Exit(code)


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
    from kd_evalsuite import commands

    evaluated = commands.load_params(params, overrides)
    commands.predict(evaluated, commands.find_model(model), out, blind=blind, replace=replace, dry_run=dry_run)
    if not dry_run:
        commands.score(evaluated, [(out, out)])


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

    if (model is None) == (best_of is None):
        raise ValueError("Expected one of --model and --best-of.")
    evaluated = commands.load_params(params, overrides)
    found = commands.find_model(model) if model is not None else commands.find_best(best_of or Path())
    commands.predict(evaluated, found, out, blind=blind, replace=replace, dry_run=dry_run)


@app.command("score")
@guarded
def score_command(
    predictions: Annotated[list[Path], typer.Option("--predictions", help="A folder of predictions, or of such ones.")],
    out: Annotated[list[Path], typer.Option("--out", help="Where the scores go; one for each --predictions.")],
    params: Params = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Score predictions. Needs no model and no torch.

    Examples:
    evalsuite score --predictions out/predictions/vlm-x --out out/eval/vlm-x

    evalsuite score --predictions out/predictions --out out/eval  (every folder in it)
    """
    from kd_evalsuite import commands

    evaluated = commands.load_params(params, overrides)
    commands.score(evaluated, commands.pairs(predictions, out), dry_run=dry_run)


@app.command("zeroshot")
@guarded
def zeroshot_command(
    model: Annotated[list[str], typer.Option("--model", help="An encoder; may be given several times.")],
    out: Annotated[Path, typer.Option("--out", help="One folder a model is made in it.")],
    params: Params = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Top-1 and top-5 of open_clip encoders on a classification set.

    Example: evalsuite zeroshot --model refs/a.json --model refs/b.json --out out/zeroshot
    """
    from kd_evalsuite import commands

    commands.zeroshot(commands.load_params(params, overrides), model, out, dry_run=dry_run)


@app.command("list")
@guarded
def list_command() -> None:
    """The benchmarks: public source, number of items, metrics.

    Example: evalsuite list
    """
    from kd_evalsuite import commands

    commands.show_tasks()


@app.command("show")
@guarded
def show_command(
    task: Annotated[str, typer.Argument(help="A benchmark, as in `evalsuite list`.")],
    params: Params = Path("params.yaml"),
    item: Annotated[str | None, typer.Option("--item", help="The id of an item; the first one otherwise.")] = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """The prompt of a benchmark on a real item, its gold answer and its metric.

    Example: evalsuite show gqa --params params.yaml
    """
    from kd_evalsuite import commands

    commands.show_item(commands.load_params(params, overrides), task, item)


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
