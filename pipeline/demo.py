"""`make demo`: run the study and say where to look."""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path

from contract.shared.lock import LockHeldError, sole_writer
from pipeline.board import TerminalBoard
from pipeline.locktable import BusyError
from pipeline.mend import mend
from pipeline.order import Finished
from pipeline.parallel import reproduce, sensible_jobs
from pipeline.stopping import Asked, asked_to_stop

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "out" / "report" / "report.html"


def prepare_dvc(root: Path) -> None:
    """`dvc init` where it has not been done; without git where there is none (a downloaded archive)."""
    dvc = [sys.executable, "-m", "dvc"]
    has_git = (root / ".git").exists()
    if not (root / ".dvc").is_dir():
        subprocess.run([*dvc, "init", "--quiet", *([] if has_git else ["--no-scm"])], cwd=root, check=True)
    elif not has_git:
        subprocess.run([*dvc, "config", "--local", "core.no_scm", "true"], cwd=root, check=True)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep a second run of stages out of this checkout.

    Raises:
        SystemExit: With code 7, if there is one, or a dvc that somebody else has started.
    """
    try:
        with sole_writer(root / "runs" / "stages"):
            yield
    except LockHeldError as error:
        who = str(error).partition(" is being written by ")[2].partition(". ")[0]
        print(f"Stages are being run in {root} by {who} already. Wait for it, or stop it.", file=sys.stderr)
        raise SystemExit(7) from None
    except BusyError as error:
        print(error, file=sys.stderr)
        raise SystemExit(7) from None


def run_stages(file: str, jobs: int, again: str, root: Path = ROOT, env: Mapping[str, str] | None = None) -> bool:
    """All stages of a dvc.yaml that have to run, `jobs` at a time; False where some could not.

    Args:
        file: relative to `root`.
        jobs: stages at a time.
        again: the command that goes on after a failure.
        root: the repository's folder.
        env: of the stages, see `reproduce`.
    """
    prepare_dvc(root)
    start = time.monotonic()
    with alone(root):
        for line in mend(root):
            print(line, flush=True)
        print(f"{file}: {jobs} stages at a time, their logs in runs/logs", flush=True)
        with asked_to_stop(), TerminalBoard(root) as board, chdir(root):
            ends = reproduce(root, file, jobs, board, root / "runs" / "logs", env)
    return summed_up(ends, time.monotonic() - start, again)


def summed_up(ends: Sequence[Finished], taken: float, again: str) -> bool:
    """Say how a run ended, and whether all went well."""
    minutes, seconds = divmod(round(taken), 60)
    count = Counter(end.outcome for end in ends)
    ran = count["ran"] + count["same"]
    if count["failed"] or count["held"]:
        print(
            f"\nAfter {minutes} min {seconds} s: {count['failed']} stages failed and {count['held']} could not run, "
            f"see runs/missing.json; {ran} ran. `{again}` goes on with what is missing."
        )
        return False
    print(f"\nDone in {minutes} min {seconds} s: {ran} stages ran, the others were up to date.")
    return True


def asked_jobs(description: str | None) -> int:
    """Stages at a time, from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--jobs", type=int, default=sensible_jobs(), help="stages at a time (default: %(default)s)")
    return int(parser.parse_args().jobs)


def stopped(again: str, asked: Asked) -> int:
    """Say how to go on after an interruption; its exit code."""
    print(f"\nStopped by {asked}. What was finished is kept; `{again}` goes on where it stopped.", file=sys.stderr)
    return asked.exit_code


def main() -> int:
    """Run the stages of dvc.yaml and print where the results are."""
    if not run_stages("dvc.yaml", asked_jobs(__doc__), "make demo"):
        return 1
    print(f"  the report      {REPORT.relative_to(ROOT)}   (report.md and tables as CSV beside it)")
    print("  runs and models make ui")
    print("  the graph       .venv/bin/dvc dag --md")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Asked as asked:
        sys.exit(stopped("make demo", asked))
