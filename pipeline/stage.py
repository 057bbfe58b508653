"""`dvc` as the runner starts it: the same, but it ends when the runner dies, and with it the stage that it runs."""

import sys

from contract.shared.parent import end_with_parent
from pipeline.locktable import write_whole_tables


def main() -> int:
    """Run dvc with this process's arguments."""
    end_with_parent()
    from dvc.cli import main as dvc

    write_whole_tables()
    return int(dvc(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
