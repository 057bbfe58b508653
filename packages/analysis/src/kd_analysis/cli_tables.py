"""The commands `analysis tables`, `figures`, `stats` and `beside`: studies from their tables of results."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kd_analysis.cli_common import Overrides, guarded, load

if TYPE_CHECKING:
    from kd_analysis.config import AnalysisParams

From = Annotated[
    str, typer.Option("--source", help="`paper` (the published numbers), `mlflow`, or a CSV file of results.")
]
MaybeParams = Annotated[
    Path | None, typer.Option("--params", help="YAML file with a section `analysis`; without it the defaults.")
]
Latest = Annotated[bool, typer.Option("--latest", help="Where several runs scored one cell, take the last of them.")]
TablesOut = Annotated[Path, typer.Option("--out", help="Where the tables go.")]
FiguresOut = Annotated[Path, typer.Option("--out", help="Where the figures go.")]
Missing = Annotated[
    Path | None, typer.Option("--missing", help="What the run of stages could not make, and why; may be absent.")
]
Study = Annotated[str, typer.Argument(help="A report's folder, a CSV file of results, `mlflow`, or `paper`.")]
Which = partial(typer.Option, metavar="KEY=VALUE")
CHOICE = "loss, dataset, epochs or framework; repeatable. Otherwise what most of them have."
First = Annotated[list[str], Which("--first", help=f"Which students of the first study: {CHOICE}")]
Second = Annotated[list[str], Which("--second", help=f"Which students of the second study: {CHOICE}")]
BesideOut = Annotated[Path, typer.Option("--out", help="Where the tables go.")]
Beside = Annotated[bool, typer.Option("--beside-paper", help="Add a table of these results beside the published ones.")]


def register(app: typer.Typer) -> None:
    """Put the commands on the command line `app`."""
    for command in (tables, figures, stats, beside):
        app.command()(guarded(command))


def tables(
    source: From = "mlflow",
    params: MaybeParams = None,
    out: TablesOut = Path("out/tables"),
    beside_paper: Beside = False,
    latest: Latest = False,
    missing: Missing = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Tables 1 to 5 and the statistics of the question: CSV, Markdown, LaTeX and HTML.

    For instance:

      analysis tables --source paper --out out/paper    (no run needed; lists the paper's inconsistencies)

      analysis tables --params params.yaml --beside-paper

      analysis tables --source out/report/results.csv
    """
    from kd_analysis import commands_tables as commands
    from kd_analysis.missing import read_missing

    section = _section(params, overrides)
    found = commands.read(source, section, latest=latest)
    commands.tables(found, section, out, beside_paper=beside_paper, lost=read_missing(missing))


def figures(
    source: From = "mlflow",
    params: MaybeParams = None,
    out: FiguresOut = Path("out/figures"),
    latest: Latest = False,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Figures 2 and 3a to 3d: SVG, PNG and the data that they show.

    For instance:

      analysis figures --source paper

      analysis figures --source out/report/results.csv --out out/figures
    """
    from kd_analysis import commands_tables as commands

    section = _section(params, overrides)
    commands.figures(commands.read(source, section, latest=latest), section, out)


def stats(
    source: From = "mlflow",
    params: MaybeParams = None,
    latest: Latest = False,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Do better teachers make better students? Every statistic, as Markdown on stdout.

    For instance:

      analysis stats --source paper

      analysis stats --source out/report/results.csv > statistics.md
    """
    from kd_analysis import commands_tables as commands

    section = _section(params, overrides)
    commands.stats(commands.read(source, section, latest=latest), section)


def beside(
    one: Study,
    two: Study,
    first: First = [],  # noqa: B006
    second: Second = [],  # noqa: B006
    params: MaybeParams = None,
    out: BesideOut = Path("out/beside"),
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Two studies cell by cell: each score, the averages, and what the better teacher gains in each.

    For instance:

      analysis beside out/sound/report out/paper/report --params studies/sound/params.yaml

      analysis beside out/sound/report out/paper/report --first loss=sound-patch --second loss=mse

      analysis beside out/paper/report paper --params studies/paper/params.yaml    (the published numbers)
    """
    from kd_analysis import commands_beside as commands

    choices = commands.choice(first, "--first"), commands.choice(second, "--second")
    commands.beside((one, choices[0]), (two, choices[1]), _section(params, overrides), out)


def _section(params: Path | None, overrides: list[str]) -> "AnalysisParams":
    from kd_analysis.config import AnalysisParams

    if params is None and overrides:
        raise ValueError("--set changes a parameter of a file; pass --params params.yaml with it.")
    return load(params, overrides) if params else AnalysisParams.model_validate({})
