"""Say in one line what this machine lacks, before anything is installed. Any Python 3, standard library only."""

import shutil
import sys

NEEDED_GB = 12


def missing() -> "str | None":
    """What is missing and what to do, or None."""
    if sys.version_info < (3, 11) or sys.version_info >= (3, 14):
        found = ".".join(map(str, sys.version_info[:3]))
        return f"Python 3.11 to 3.13 is needed, {found} was found: make PYTHON=python3.11 ..."
    if not shutil.which("git"):
        return "git is needed and was not found: install it and run make again"
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        return "Python's venv module is incomplete: install python3-venv and run make again"
    free = shutil.disk_usage(".").free / 1e9
    if free < NEEDED_GB:
        return f"{NEEDED_GB} GB of free disk are needed here, {free:.1f} GB were found: free some and run make again"
    return None


if __name__ == "__main__":
    if problem := missing():
        sys.exit(problem)
