"""The command `analysis`. It parses and calls; what takes long is imported by the command that needs it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kd_analysis.config import AnalysisParams

app = typer.Typer(
    name="analysis",
    help="How alike student and teacher are, how they score, and what may be said about it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Params = Annotated[Path, typer.Option("--params", help="YAML file with a section `analysis`.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one parameter, e.g. --set tap=embed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check parameters and inputs; say what would be done.")]
Students = Annotated[
    list[str], typer.Option("--student", help="A reference file, models:/name, or a model's folder; repeatable.")
]
Teachers = Annotated[list[str], typer.Option("--teacher", help="The teacher beside it; as often as --student.")]
Zeroshot = Annotated[list[Path], typer.Option("--zeroshot", help="Zero-shot results, one folder a model; repeatable.")]
Evaluated = Annotated[
    list[Path], typer.Option("--eval", help="VLM results, one folder a model; repeatable, may be absent.")
]
CkaIn = Annotated[Path, typer.Option("--cka", help="Where `analysis cka` wrote; may be absent.")]
CkaOut = Annotated[Path, typer.Option("--out", help="Where the similarities go.")]
ReportOut = Annotated[Path, typer.Option("--out", help="Where the report goes.")]
ReportIn = Annotated[Path, typer.Option("--report", help="Where `analysis report` wrote; may be absent.")]

PARAMS, ZEROSHOT, EVAL = Path("params.yaml"), [Path("out/zeroshot")], [Path("out/eval")]
CKA, REPORT = Path("out/cka"), Path("out/report")


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Known errors become one message and an exit code: 2 input, 5 integrity, 130 interrupted; 1 is any other."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        from kd_analysis.tracking import IntegrityError

        try:
            command(*args, **kwargs)
        except IntegrityError as error:
            _fail(error, 5)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "kd_analysis":
                raise
            _fail(f"{error}. Install what this command needs: pip install 'kd-analysis[features,mlflow]'.", 2)
        except (ValueError, FileNotFoundError) as error:  # ParamsError, InputError and ImageError are ValueErrors
            _fail(error, 2)
        except KeyboardInterrupt:
            _fail("Interrupted. Nothing is half written in the report; run the same command again.", 130)

    return run


def _fail(error: object, code: int) -> None:
    from kd_analysis.view import complain

    complain(error)
    raise typer.Exit(code)


def _load(path: Path, overrides: list[str]) -> "AnalysisParams":
    from kd_analysis.config import AnalysisParams
    from kd_analysis.params import load_section

    return load_section(path, "analysis", AnalysisParams, overrides)


@app.command()
@guarded
def cka(
    student: Students = [],  # noqa: B006
    teacher: Teachers = [],  # noqa: B006
    params: Params = PARAMS,
    out: CkaOut = CKA,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
) -> None:
    """Linear CKA of students and teachers on each task's images, with controls.

    Without --student and --teacher, the pairs are those of the parameters or all references in `analysis.refs`.

    For instance:

      analysis cka --params params.yaml

      analysis cka --student refs/student-a.json --teacher refs/teacher-b.json

      analysis cka --set tap=embed --set 'tasks=[gqa, mmvp]'
    """
    from kd_analysis import commands

    commands.cka(_load(params, overrides), student, teacher, out, dry_run)


@app.command()
@guarded
def report(
    params: Params = PARAMS,
    zeroshot: Zeroshot = ZEROSHOT,
    evaluated: Evaluated = EVAL,
    cka: CkaIn = CKA,
    out: ReportOut = REPORT,
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

    commands.report(_load(params, overrides), commands.Inputs(tuple(zeroshot), tuple(evaluated), cka), out, dry_run)


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

    section = _load(params, overrides)
    commands.cka(section, student, teacher, cka, dry_run)
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

    commands.publish(_load(params, overrides), cka, report, dry_run)


if __name__ == "__main__":
    app()
