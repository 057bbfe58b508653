"""`make demo`: run the study and say where to look."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = ROOT / "out" / "report" / "report.html"


def environment() -> dict[str, str]:
    """This process's environment with the virtual environment's commands first on the path."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def prepare_dvc(root: Path) -> None:
    """`dvc init` where it has not been done; without git where there is none (a downloaded archive)."""
    dvc = [sys.executable, "-m", "dvc"]
    has_git = (root / ".git").exists()
    if not (root / ".dvc").is_dir():
        subprocess.run([*dvc, "init", "--quiet", *([] if has_git else ["--no-scm"])], cwd=root, check=True)
    elif not has_git:
        subprocess.run([*dvc, "config", "--local", "core.no_scm", "true"], cwd=root, check=True)


def main() -> int:
    """Run `dvc repro` and print where the results are."""
    prepare_dvc(ROOT)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *sys.argv[1:]], cwd=ROOT, env=environment(), check=False
    )
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    if done.returncode:
        print(f"\nStopped after {minutes} min {seconds} s. `make demo` goes on where it stopped.")
        return done.returncode
    print(f"\nDone in {minutes} min {seconds} s.")
    print(f"  the report      {REPORT.relative_to(ROOT)}   (report.md and tables as CSV beside it)")
    print("  runs and models make ui")
    print("  the graph       .venv/bin/dvc dag --md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
