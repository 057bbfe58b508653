"""`make study`: the distillation part over seeds and student architectures; its report is kept in `docs/study`."""

import argparse
import shutil
import sys
from pathlib import Path

from pipeline.demo import ROOT, run_stages
from pipeline.parallel import sensible_jobs

STUDY = "studies/seeds/dvc.yaml"
REPORT = ROOT / "out" / "study" / "report"
KEPT = ROOT / "docs" / "study"


def keep(report: Path, kept: Path) -> None:
    """Replace the kept report by this one."""
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(report, kept)


def main() -> int:
    """Run the stages of studies/seeds/dvc.yaml and keep the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=sensible_jobs(), help="stages at a time (default: %(default)s)")
    if not run_stages(STUDY, parser.parse_args().jobs, "make study"):
        return 1
    keep(REPORT, KEPT)
    print(f"  the report      {KEPT.relative_to(ROOT) / 'report.html'}   (report.md and tables as CSV beside it)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
