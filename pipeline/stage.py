"""`dvc` as the runner starts it: the same, but it ends when the runner dies, and with it the stage that it runs."""

import sys
from typing import Literal

from contract.shared.parent import end_with_parent
from pipeline.locktable import write_whole_tables


def outcome_of(said: bytes) -> Literal["ran", "same", "unchanged"]:
    """What a `dvc repro` of one stage did that ended well, from what it printed.

    `same` is a stage that ran and left what it had left before: checks and registries, which run always. Nothing that
    depends on it has to be looked at.
    """
    if b"Running stage '" not in said:
        return "unchanged"
    return "ran" if b"Updating lock file '" in said else "same"


def main() -> int:
    """Run dvc with this process's arguments."""
    end_with_parent()
    from dvc.cli import main as dvc

    write_whole_tables()
    return int(dvc(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
