"""Commands about benchmarks and scores, none of which asks a model (but zero-shot classification, which runs one)."""

from pathlib import Path
from typing import Annotated

import typer

from kd_evalsuite.options import DryRun, Overrides, Params, guarded

app = typer.Typer(rich_markup_mode="rich")

Data = Annotated[
    Path | None,
    typer.Option("--data", help="A benchmark's folder or file, or the folder of all; else `data` of the parameters."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output, nothing else.")]
TaskOption = Annotated[str | None, typer.Option("--task", help="A benchmark, as in `evalsuite list`.")]
Tasks = Annotated[str, typer.Option("--tasks", help="Benchmarks with commas between, or all: those with a folder.")]
Protocol = Annotated[
    str, typer.Option("--protocol", help="paper, cambrian, lmms, vlmevalkit or official; `evalsuite list` says more.")
]
ErrataOption = Annotated[bool, typer.Option("--errata", help="Correct labels that are known to be wrong.")]
Replies = Annotated[
    Path, typer.Option("--predictions", help="Replies: our JSON lines, or LLaVA's, Cambrian's, lmms-eval's, MME's.")
]


@app.command("score")
@guarded
def score_command(
    predictions: Annotated[
        list[Path], typer.Option("--predictions", help="A folder of predictions or of such; with --task one file.")
    ],
    out: Annotated[list[Path], typer.Option("--out", help="Where the scores go; one for each --predictions.")] = [],  # noqa: B006
    task: TaskOption = None,
    protocol: Annotated[str | None, typer.Option("--protocol", help="Default: that of the folder, else paper.")] = None,
    data: Data = None,
    json: Json = False,
    errata: ErrataOption = False,
    judge: Annotated[
        str | None, typer.Option("--judge", help="MathVista: an OpenAI-compatible server that extracts answers.")
    ] = None,
    judge_model: Annotated[str, typer.Option("--judge-model", help="The judge's model.")] = "",
    judge_cache: Annotated[
        Path, typer.Option("--judge-cache", help="What the judge said; with a full one no server is asked.")
    ] = Path("judge.jsonl"),
    params: Params = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Score predictions. Pure: no model, no torch, no network; the same files give the same bytes.

    Examples:
    evalsuite score --task gqa --protocol paper --predictions answers.jsonl --data data/gqa --json

    evalsuite score --predictions out/predictions --out out/eval  (every folder in it, data as in params.yaml)
    """
    from kd_evalsuite import commands_data, commands_scores

    if task is not None:
        if len(predictions) != 1 or len(out) > 1:
            raise ValueError("With --task, expected one --predictions and at most one --out.")
        asked = commands_scores.Judging(judge, judge_model, judge_cache) if judge or judge_model else None
        root = commands_data.data_root(data, params, overrides)
        commands_scores.score_one(
            task, protocol, predictions[0], root, out=out[0] if out else None, as_json=json, errata=errata,
            judging=asked, dry_run=dry_run,
        )  # fmt: skip
        return
    if errata or judge or judge_model:
        raise ValueError("--errata and --judge go with --task.")
    root = commands_data.data_root(data, params, overrides)
    folders = commands_scores.pairs(predictions, out)
    commands_scores.score_folders(root, folders, protocol=protocol, as_json=json, dry_run=dry_run)


@app.command("rescore")
@guarded
def rescore_command(
    predictions: Replies,
    task: TaskOption = None,
    data: Data = None,
    json: Json = False,
    errata: ErrataOption = False,
    params: Params = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """The same predictions under every protocol, side by side.

    Examples:
    evalsuite rescore --task mmvp --predictions answers.jsonl --data data/mmvp

    evalsuite rescore --predictions out/predictions/vlm-x  (every task in the folder)
    """
    from kd_evalsuite import commands_data, commands_scores

    root = commands_data.data_root(data, params, overrides)
    commands_scores.rescore(task, predictions, root, as_json=json, errata=errata)


@app.command("doctor")
@guarded
def doctor_command(
    data: Data = None,
    tasks: Tasks = "all",
    complete: Annotated[
        bool, typer.Option("--complete", help="Fewer or more items than the public data set is wrong.")
    ] = False,
    pictures: Annotated[bool, typer.Option("--pictures", help="Decode every picture, too.")] = False,
    json: Json = False,
    params: Params = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Check benchmarks: columns, numbers, labels, pairs, pictures, digests; everything that is wrong, at once.

    Example: evalsuite doctor --data data/benchmarks --complete
    """
    from kd_evalsuite import commands_data

    root = commands_data.data_root(data, params, overrides)
    commands_data.doctor(root, tasks, complete=complete, pictures=pictures, as_json=json)


@app.command("baselines")
@guarded
def baselines_command(
    data: Data = None,
    tasks: Tasks = "all",
    protocol: Protocol = "paper",
    blind: Annotated[
        Path | None, typer.Option("--blind", help="A folder of predictions made without the images.")
    ] = None,
    json: Json = False,
    params: Params = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """What guessing, a constant reply, the most frequent answer and a blind model score.

    Example: evalsuite baselines --data data/benchmarks --blind out/predictions/vlm-x-blind
    """
    from kd_evalsuite import commands_data

    root = commands_data.data_root(data, params, overrides)
    commands_data.show_baselines(root, tasks, protocol, blind, as_json=json)


@app.command("fetch")
@guarded
def fetch_command(
    tasks: Annotated[list[str], typer.Argument(help="Benchmarks, as in `evalsuite list`, or all.")],
    data: Annotated[Path, typer.Option("--data", help="One folder a benchmark is made in it.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Another commit, branch or tag.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Another copy, for one benchmark.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Bring benchmarks from the Hugging Face hub, at a commit that is written down; the only command that goes there.

    Example: evalsuite fetch gqa mmvp --data data/benchmarks
    """
    from kd_evalsuite import commands_data

    commands_data.fetch(tasks, data, revision=revision, dataset=dataset, dry_run=dry_run)


@app.command("zeroshot")
@guarded
def zeroshot_command(
    model: Annotated[list[str], typer.Option("--model", help="An encoder; may be given several times.")],
    out: Annotated[Path, typer.Option("--out", help="One folder a model is made in it.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="A set as webdataset, ImageFolder or parquet; no parameters needed.")
    ] = None,
    names: Annotated[str | None, typer.Option("--names", help="folder, or imagenet for its 1000 names.")] = None,
    templates: Annotated[
        str | None, typer.Option("--templates", help="folder, imagenet for its 80 prompts, or simple for 7.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:N or mps.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Threads that decode images.")] = None,
    params: Annotated[
        Path | None, typer.Option("--params", help="YAML file with a section `evalsuite`; params.yaml without --data.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Top-1, top-5 and mean per-class recall of open_clip encoders on a classification set.

    Examples:
    evalsuite zeroshot --model refs/a.json --model refs/b.json --out out/zeroshot  (the set of params.yaml)

    evalsuite zeroshot --model clip-b16 --data imagenet/val --names imagenet --templates imagenet --out out/zeroshot
    """
    from kd_evalsuite import commands_zeroshot
    from kd_evalsuite.config import params_from

    asked = {"data": data, "names": names, "templates": templates, "workers": workers}
    section = {key: value for key, value in asked.items() if value is not None}
    file = params or (None if data is not None else Path("params.yaml"))
    loaded = params_from(file, overrides, {"zeroshot": section, "device": device})
    commands_zeroshot.zeroshot(
        loaded.zeroshot, model, out, device=loaded.device, threads=loaded.threads, dry_run=dry_run
    )


@app.command("list")
@guarded
def list_command(json: Json = False) -> None:
    """The benchmarks: public source, number of items, metrics, protocols.

    Example: evalsuite list
    """
    from kd_evalsuite import commands_data

    commands_data.show_tasks(as_json=json)


@app.command("show")
@guarded
def show_command(
    task: Annotated[str, typer.Argument(help="A benchmark, as in `evalsuite list`.")],
    data: Data = None,
    protocol: Protocol = "paper",
    item: Annotated[str | None, typer.Option("--item", help="The id of an item; the first one otherwise.")] = None,
    params: Params = Path("params.yaml"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """A benchmark: its data, the prompt on a real item, the gold answer, the metric, labels known to be wrong.

    Example: evalsuite show gqa --data data/benchmarks
    """
    from kd_evalsuite import commands_data

    commands_data.show_item(task, commands_data.data_root(data, params, overrides), protocol, item)
