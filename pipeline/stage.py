"""`dvc` as the runner starts it: the same, but it ends when the runner dies, and with it the stage that it runs."""

import sys

from contract.shared.parent import end_with_parent


def main() -> int:
    """Run dvc with this process's arguments."""
    end_with_parent()
    from dvc.cli import main as dvc

    return int(dvc(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
