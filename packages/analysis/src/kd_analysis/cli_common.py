"""What the commands share: options, the section of params.yaml, and errors as exit codes."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kd_analysis.config import AnalysisParams

PARAMS = Path("params.yaml")
Params = Annotated[Path, typer.Option("--params", help="YAML file with a section `analysis`.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one parameter, e.g. --set tap=embed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check parameters and inputs; say what would be done.")]
Students = Annotated[
    list[str], typer.Option("--student", help="A reference file, models:/name, or a model's folder; repeatable.")
]
Teachers = Annotated[
    list[str], typer.Option("--teacher", help="The teacher beside it; once for all students, or as often as --student.")
]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Known errors become one message and an exit code: 2 input, 5 integrity, 6 storage, 130 interrupted; else 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        from kd_analysis.durable import storage_trouble
        from kd_analysis.parent import end_with_dvc, print_anywhere
        from kd_analysis.tracking import IntegrityError

        end_with_dvc()
        print_anywhere()
        try:
            command(*args, **kwargs)
        except IntegrityError as error:
            _fail(error, 5)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] == "kd_analysis":
                raise
            _fail(f"{error}. Install what this command needs: pip install 'kd-analysis[features,vlm,mlflow]'.", 2)
        except (ValueError, FileNotFoundError) as error:  # ParamsError, InputError and ImageError are ValueErrors
            _fail(error, 2)
        except KeyboardInterrupt:
            _fail("Interrupted. Nothing is half written in the report; run the same command again.", 130)
        except Exception as error:  # MLflow has its own kinds for a full disk
            if (said := storage_trouble(error)) is None:
                raise
            _fail(said, 6)

    return run


def _fail(error: object, code: int) -> None:
    from kd_analysis.view import complain

    complain(error)
    raise typer.Exit(code)


def load(path: Path | None, overrides: list[str]) -> "AnalysisParams":
    """The section of a file. Without a path: of `params.yaml` where there is one, else the defaults."""
    from kd_analysis.config import AnalysisParams
    from kd_analysis.params import load_section

    if path is not None or PARAMS.is_file():
        return load_section(path or PARAMS, "analysis", AnalysisParams, overrides)
    with tempfile.TemporaryDirectory() as folder:
        defaults = Path(folder, "defaults.yaml")
        defaults.write_text("analysis: {}\n")
        return load_section(defaults, "analysis", AnalysisParams, overrides)
