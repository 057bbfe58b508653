"""Commands about benchmarks and scores, none of which asks a model (but zero-shot classification, which runs one)."""

from pathlib import Path
from typing import Annotated

import typer

from kd_evalsuite.options import DryRun, Overrides, Params, guarded

app = typer.Typer(rich_markup_mode="rich")


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
    from kd_evalsuite import commands_data
    from kd_evalsuite.finding import load_params

    evaluated = load_params(params, overrides)
    commands_data.score(evaluated, commands_data.pairs(predictions, out), dry_run=dry_run)


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
    from kd_evalsuite import commands_data
    from kd_evalsuite.finding import load_params

    commands_data.zeroshot(load_params(params, overrides), model, out, dry_run=dry_run)


@app.command("list")
@guarded
def list_command() -> None:
    """The benchmarks: public source, number of items, metrics.

    Example: evalsuite list
    """
    from kd_evalsuite import commands_data

    commands_data.show_tasks()


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
    from kd_evalsuite import commands_data
    from kd_evalsuite.finding import load_params

    commands_data.show_item(load_params(params, overrides), task, item)
