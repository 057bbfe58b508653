"""`make study`: the distillation part over seeds and student architectures; its report is kept in `docs/study`."""

import shutil
import sys
from pathlib import Path

from pipeline.demo import ROOT, asked_jobs, run_stages, stopped
from pipeline.stopping import Asked

STUDY = "studies/seeds/dvc.yaml"
REPORT = ROOT / "out" / "study" / "report"
KEPT = ROOT / "docs" / "study"


def keep(report: Path, kept: Path) -> None:
    """Replace the kept report by this one."""
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(report, kept)


def main() -> int:
    """Run the stages of studies/seeds/dvc.yaml and keep the report."""
    if not run_stages(STUDY, asked_jobs(__doc__), "make study"):
        return 1
    keep(REPORT, KEPT)
    print(f"  the report      {KEPT.relative_to(ROOT) / 'report.html'}   (report.md and tables as CSV beside it)")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Asked as asked:
        sys.exit(stopped("make study", asked))
