"""What an exception means to whoever called the command (contract/README.md, "Exit codes")."""

import errno

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def exit_code(error: Exception) -> int | None:
    """The exit code of an expected failure; None for a bug, which shows its traceback and exits with 1."""
    from kd_vlm.checkpoint import StorageError
    from kd_vlm.distributed import RankLostError
    from kd_vlm.lock import LockHeldError
    from kd_vlm.shipping import UnreachableError
    from kd_vlm.signals import Stopped
    from kd_vlm.tracking import IntegrityError

    if isinstance(error, Stopped):
        return error.exit_code
    if isinstance(error, OSError) and error.errno in FULL:
        return 6
    codes = (
        (LockHeldError, 7),
        (StorageError, 6),
        (IntegrityError, 5),
        (FloatingPointError, 4),
        ((UnreachableError, RankLostError), 75),
        ((ValueError, FileNotFoundError), 2),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), None)  # type: ignore[arg-type]
