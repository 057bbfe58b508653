"""The commands about similarity; what takes long is imported by the command that needs it."""

from pathlib import Path
from typing import Annotated

import typer

from kd_analysis.cli_common import PARAMS, DryRun, Overrides, Params, Students, Teachers, guarded, load

CkaOut = Annotated[Path, typer.Option("--out", help="Where the similarities go.")]
CKA = Path("out/cka")


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
    from kd_analysis import commands_similarity

    commands_similarity.cka(load(params, overrides), student, teacher, out, dry_run)


def register(app: typer.Typer) -> None:
    """Put these commands on `analysis`."""
    app.command()(cka)
