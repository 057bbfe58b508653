"""The command `evalsuite`. It parses and calls; what takes long is imported by the command that needs it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from kd_evalsuite import cli_data, cli_results
from kd_evalsuite import options_model as opt
from kd_evalsuite.options import Blind, DryRun, Out, Overrides, Replace, guarded

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
    from kd_evalsuite.models.hub import stay_offline
    from kd_evalsuite.parent import end_with_dvc, print_anywhere

    end_with_dvc()
    print_anywhere()
    stay_offline()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@app.command("run")
@guarded
def run_command(
    model: opt.ModelSpec,
    out: Out,
    tasks: opt.Tasks = None,
    data: opt.Data = None,
    protocol: opt.Protocol = None,
    limit: opt.Limit = None,
    mode: opt.ModeName = None,
    blind: Blind = False,
    replace: Replace = False,
    shard: opt.ShardOption = None,
    batch_size: opt.BatchSize = None,
    verify_batch: opt.Verify = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    feature_cache: opt.FeatureCache = None,
    concurrency: opt.Concurrency = None,
    timeout: opt.Timeout = None,
    params: opt.ParamsFile = None,
    overrides: Overrides = [],  # noqa: B006  # typer reads it, nothing writes to it
    dry_run: DryRun = False,
) -> None:
    """Predict, then score, into one folder. Killed and run again, it goes on where it stopped.

    Examples:
    evalsuite run --model path/to/vlm --tasks gqa,mmvp --data data/benchmarks --out out/vlm

    evalsuite run --model http://127.0.0.1:8000/v1 --tasks mme_perception --data data/benchmarks --out out/served

    evalsuite run --model path/to/encoder --tasks zeroshot --data data/classes --out out/zeroshot

    evalsuite run --params params.yaml --model refs/vlm-x.json --out out/eval/vlm-x
    """
    from kd_evalsuite import commands
    from kd_evalsuite.config import params_from

    asked = opt.given(
        tasks, concurrency, timeout, data=data, protocol=protocol, limit=limit, mode=mode, batch_size=batch_size,
        verify_batch=verify_batch, device=device, dtype=dtype, feature_cache=feature_cache,
    )  # fmt: skip
    evaluated = params_from(params, overrides, asked)
    commands.run(
        evaluated,
        model,
        out,
        asked=asked,
        zeroshot=tasks if tasks in opt.ZEROSHOT else None,
        blind=blind,
        replace=replace,
        shard=commands.shard_of(shard),
        dry_run=dry_run,
    )


@app.command("predict")
@guarded
def predict_command(
    out: Out,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="As in `evalsuite run`.")] = None,
    best_of: Annotated[
        Path | None, typer.Option("--best-of", help="Take the model with the highest Average in these scores.")
    ] = None,
    tasks: opt.Tasks = None,
    data: opt.Data = None,
    protocol: opt.Protocol = None,
    limit: opt.Limit = None,
    mode: opt.ModeName = None,
    blind: Blind = False,
    replace: Replace = False,
    shard: opt.ShardOption = None,
    batch_size: opt.BatchSize = None,
    verify_batch: opt.Verify = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    feature_cache: opt.FeatureCache = None,
    concurrency: opt.Concurrency = None,
    timeout: opt.Timeout = None,
    params: opt.ParamsFile = None,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Ask a model every item; killed and run again, it goes on where it stopped.

    Examples:
    evalsuite predict --model path/to/vlm --tasks all --data data/benchmarks --out out/predictions/vlm

    torchrun --nproc-per-node 8 -m kd_evalsuite predict --device cuda --model path/to/vlm --out out/predictions/vlm

    evalsuite predict --params params.yaml --best-of out/eval --blind --out out/predictions/best-blind
    """
    from kd_evalsuite import commands
    from kd_evalsuite.config import params_from

    if (model is None) == (best_of is None):
        raise ValueError("Expected one of --model and --best-of.")
    if tasks in opt.ZEROSHOT:
        raise ValueError(f"--tasks {tasks} asks no questions: use `evalsuite run` or `evalsuite zeroshot`.")
    asked = opt.given(
        tasks, concurrency, timeout, data=data, protocol=protocol, limit=limit, mode=mode, batch_size=batch_size,
        verify_batch=verify_batch, device=device, dtype=dtype, feature_cache=feature_cache,
    )  # fmt: skip
    evaluated = params_from(params, overrides, asked)
    found = commands.find_best(best_of, evaluated) if best_of else commands.find(model or "", evaluated)
    commands.predict(
        evaluated, found, out, blind=blind, replace=replace, shard=commands.shard_of(shard), dry_run=dry_run
    )


@app.command("merge")
@guarded
def merge_command(
    shards: Annotated[list[Path], typer.Argument(help="Folders of predictions, each with a share of the items.")],
    out: Out,
    replace: Replace = False,
) -> None:
    """Put shares of one run together; refused unless they are of one model, data and protocol, and complete.

    Example: evalsuite merge machine-a/shards/* machine-b/shards/* --out out/predictions/vlm
    """
    from kd_evalsuite import commands

    commands.merge(shards, out, replace=replace)


@app.command("publish")
@guarded
def publish_command(
    folders: Annotated[list[Path], typer.Argument(help="Folders with scores.json, or folders of such ones.")],
    predictions: Annotated[
        list[Path], typer.Option("--predictions", help="Where the predictions are, if not beside the scores.")
    ] = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Record scores in MLflow and link them to the models; a second time changes nothing.

    Example: evalsuite publish out/eval out/zeroshot --predictions out/predictions
    """
    from kd_evalsuite import commands

    commands.publish(folders, predictions, dry_run=dry_run)


app.add_typer(cli_data.app)
app.add_typer(cli_results.app)
