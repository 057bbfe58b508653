"""What an exception means to whoever called the command (contract/README.md, "Exit codes")."""

import errno

STOPPED, REQUEUE = 143, 75
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def exit_code(error: Exception) -> int | None:
    """The exit code of an expected failure; None for a bug, which shows its traceback and exits with 1."""
    from kd_distill.ahead import StalledError
    from kd_distill.checkpoint import StorageError
    from kd_distill.distributed import RankLostError
    from kd_distill.ledger import TooManyBadError
    from kd_distill.lock import LockHeldError
    from kd_distill.remote import UnreachableStoreError
    from kd_distill.shipping import UnreachableError
    from kd_distill.signals import Stopped
    from kd_distill.tracking import IntegrityError

    if isinstance(error, Stopped):
        return error.exit_code
    if isinstance(error, OSError) and error.errno in FULL:
        return 6
    codes = (
        (LockHeldError, 7),
        (StorageError, 6),
        (IntegrityError, 5),
        (FloatingPointError, 4),
        (TooManyBadError, 3),
        ((UnreachableError, StalledError, RankLostError, UnreachableStoreError), REQUEUE),
        ((ValueError, FileNotFoundError), 2),
    )
    return next((code for kind, code in codes if isinstance(error, kind)), None)  # type: ignore[arg-type]
