"""Commands about results: compare models, report on them, look into published tables. None needs a model or torch."""

from pathlib import Path
from typing import Annotated

import typer

from kd_evalsuite.options import guarded

app = typer.Typer(rich_markup_mode="rich")

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL…",
        help="Folders with scores.json and items.jsonl, folders of such ones, names of models in --scores, or answer "
        "files of one --task, which are scored.",
    ),
]
ScoresIn = Annotated[Path | None, typer.Option("--scores", help="A folder of scored models, to name them by name.")]
Predictions = Annotated[
    list[Path],
    typer.Option("--predictions", help="Where the replies are, if not beside the scores: one folder a model, or one."),
]
Data = Annotated[Path | None, typer.Option("--data", help="The benchmarks' data, to show questions and images.")]
TaskOption = Annotated[list[str], typer.Option("--task", help="Only this task; may be given several times.")]
Protocol = Annotated[
    str | None,
    typer.Option(
        "--protocol", help="How answer files are scored. Default: as the manifest beside them says, else paper."
    ),
]
Common = Annotated[bool, typer.Option("--common", help="Compare on what all models answered, leaving out the rest.")]
AllPairs = Annotated[bool, typer.Option("--all-pairs", help="Every pair, not only every model against the first.")]
Level = Annotated[float, typer.Option("--level", min=0.5, max=0.999, help="Coverage of the intervals.")]
Samples = Annotated[int, typer.Option("--samples", min=100, help="Resamples of the bootstrap.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the resampling.")]


Heading = Annotated[str | None, typer.Option("--title", help="The page's heading; the models' names otherwise.")]


@app.command("compare")
@guarded
def compare_command(
    models: Models,
    scores: ScoresIn = None,
    predictions: Predictions = [],  # noqa: B006  # typer reads it, nothing writes to it
    data: Data = None,
    task: TaskOption = [],  # noqa: B006
    flips: Annotated[int, typer.Option("--flips", min=0, help="Items to show, each task and direction.")] = 0,
    protocol: Protocol = None,
    common: Common = False,
    all_pairs: AllPairs = False,
    level: Level = 0.95,
    samples: Samples = 10_000,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write compare.md, .csv, .json; flips.csv, .html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Which model is better, where, and whether that can be told. The first model is what the others are held against.

    Models must have answered the same items. Items on one image, of one pair or of one circular group are resampled
    together; p is exact or by sign flips, adjusted by Holm over the tasks.

    Examples:
    evalsuite compare out/eval/vlm-a out/eval/vlm-b

    evalsuite compare --scores out/eval vlm-a vlm-b --data data/benchmarks --flips 3 --task gqa

    evalsuite compare out/eval --all-pairs --out out/comparison

    evalsuite compare llava-7b.jsonl llava-13b.jsonl --task gqa --data data/gqa
    """
    from kd_evalsuite import commands_results as commands
    from kd_evalsuite.compare import How

    how = How(level=level, samples=samples, seed=seed)
    results = commands.read(models, scores, predictions, tasks=task, data=data, protocol=protocol)
    found = commands.compared(results, task, how=how, common=common, all_pairs=all_pairs)
    commands.show_comparison(found, results, data, n_flips=flips, out=out, as_json=as_json)


@app.command("report")
@guarded
def report_command(
    models: Models,
    out: Annotated[Path, typer.Option("--out", help="Where the page and the tables go.")],
    scores: ScoresIn = None,
    predictions: Predictions = [],  # noqa: B006
    data: Data = None,
    task: TaskOption = [],  # noqa: B006
    worst: Annotated[int, typer.Option("--worst", min=0, help="Items to look at, for each task.")] = 2,
    flips: Annotated[int, typer.Option("--flips", min=0, help="Items where models differ, each task and way.")] = 2,
    max_image_mb: Annotated[float, typer.Option("--max-image-mb", min=0, help="Of all thumbnails together.")] = 8.0,
    title: Heading = None,
    protocol: Protocol = None,
    common: Common = False,
    all_pairs: AllPairs = False,
    level: Level = 0.95,
    samples: Samples = 10_000,
    seed: Seed = 0,
) -> None:
    """One page about one model or several, in one file that works offline; Markdown, LaTeX and CSV beside it.

    Examples:
    evalsuite report out/eval/vlm-a --out out/report --data data/benchmarks

    evalsuite report out/eval --predictions out/predictions --data data/benchmarks --out out/report
    """
    from kd_evalsuite import commands_results as commands
    from kd_evalsuite.compare import How

    results = commands.read(models, scores, predictions, tasks=task, data=data, protocol=protocol)
    commands.write_report(
        results, task, out, data, how=How(level=level, samples=samples, seed=seed), common=common, all_pairs=all_pairs,
        n_worst=worst, n_flips=flips, image_bytes=int(max_image_mb * 2**20), heading=title,
    )  # fmt: skip


@app.command("forensics")
@guarded
def forensics_command(
    table: Annotated[Path, typer.Argument(help="A CSV table as published: one row a model, one column a benchmark.")],
    counts: Annotated[
        list[str],
        typer.Option("--counts", metavar="COLUMN=N,N | LOW-HIGH", help="A column's item counts, or what to search."),
    ] = [],  # noqa: B006
    by: Annotated[str | None, typer.Option("--by", help="Split every column by this text column.")] = None,
    declare: Annotated[
        Path | None, typer.Option("--declare", help="YAML with a section `forensics`: columns, scales, counts.")
    ] = None,
    decimals: Annotated[
        int | None, typer.Option("--decimals", min=0, max=6, help="Printed decimals, where the file dropped zeros.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Which numbers of items can have produced a table's printed digits, and what in it cannot be as it says.

    Columns named after a benchmark are known with their public counts, scale and what guessing scores; others are
    declared by --counts or in a file. Digits are taken as printed: 62.9 in a column with 62.91 is 62.90.

    Examples:
    evalsuite forensics table.csv

    evalsuite forensics table.csv --counts 'my bench=812' --counts 500-7000 --by framework
    """
    from kd_evalsuite import commands_forensics

    commands_forensics.run(table, counts, by=by, declare=declare, decimals=decimals, as_json=as_json)
