"""The command `analysis`. It parses and calls; what takes long is imported by the command that needs it."""

from pathlib import Path
from typing import Annotated

import typer

from kd_analysis import cli_similarity, cli_tables
from kd_analysis.cli_common import PARAMS, DryRun, Overrides, Params, Students, Teachers, guarded, load

app = typer.Typer(
    name="analysis",
    help="How alike student and teacher are, how they score, and what may be said about it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
cli_similarity.register(app)
cli_tables.register(app)

Zeroshot = Annotated[list[Path], typer.Option("--zeroshot", help="Zero-shot results, one folder a model; repeatable.")]
Evaluated = Annotated[
    list[Path], typer.Option("--eval", help="VLM results, one folder a model; repeatable, may be absent.")
]
CkaIn = Annotated[Path, typer.Option("--cka", help="Where `analysis cka` wrote; may be absent.")]
ReportOut = Annotated[Path, typer.Option("--out", help="Where the report goes.")]
Registry = Annotated[
    bool, typer.Option("--registry", help="Name each model's registered version and run; needs the registry.")
]
Missing = Annotated[
    Path | None, typer.Option("--missing", help="What the run of stages could not make, and why; may be absent.")
]
ReportIn = Annotated[Path, typer.Option("--report", help="Where `analysis report` wrote; may be absent.")]

ZEROSHOT, EVAL = [Path("out/zeroshot")], [Path("out/eval")]
CKA, REPORT = Path("out/cka"), Path("out/report")


@app.command()
@guarded
def report(
    params: Params = PARAMS,
    zeroshot: Zeroshot = ZEROSHOT,
    evaluated: Evaluated = EVAL,
    cka: CkaIn = CKA,
    out: ReportOut = REPORT,
    registry: Registry = False,
    missing: Missing = None,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """One page that answers whether the better teacher made the better student, with its evidence.

    For instance:

      analysis report --params params.yaml

      analysis report --zeroshot out/zeroshot --eval out/eval --eval out/blind/eval --out out/report

      analysis report --zeroshot out/study/zeroshot   (several seeds, no VLMs)
    """
    from kd_analysis import commands

    inputs = commands.Inputs(tuple(zeroshot), tuple(evaluated), cka, missing)
    commands.report(load(params, overrides), inputs, out, dry_run, registry=registry)


@app.command()
@guarded
def run(
    params: Params = PARAMS,
    student: Students = [],  # noqa: B006
    teacher: Teachers = [],  # noqa: B006
    zeroshot: Zeroshot = ZEROSHOT,
    evaluated: Evaluated = EVAL,
    cka: CkaIn = CKA,
    out: ReportOut = REPORT,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """`analysis cka`, then `analysis report`.

    For instance:

      analysis run --params params.yaml

      analysis run --params params.yaml --set max_images=100 --dry-run
    """
    from kd_analysis import commands
    from kd_analysis.commands_similarity import cka as measure

    section = load(params, overrides)
    measure(section, student, teacher, cka, dry_run)
    commands.report(section, commands.Inputs(tuple(zeroshot), tuple(evaluated), cka), out, dry_run)


@app.command()
@guarded
def publish(
    params: Params = PARAMS,
    cka: CkaIn = CKA,
    report: ReportIn = REPORT,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Put the similarities on the students' models in MLflow, and the report with them. Safe to repeat.

    For instance:

      analysis publish --params params.yaml

      MLFLOW_TRACKING_URI=http://localhost:5000 analysis publish --cka out/cka --report out/report
    """
    from kd_analysis import commands

    commands.publish(load(params, overrides), cka, report, dry_run)


if __name__ == "__main__":
    app()
