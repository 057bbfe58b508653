"""What an exception means to whoever called the command (contract/README.md, "Exit codes")."""

STOPPED, REQUEUE = 143, 75


def exit_code(error: Exception) -> int | None:
    """The exit code of an expected failure; None for a bug, which shows its traceback and exits with 1."""
    from kd_vlm.checkpoint import StorageError
    from kd_vlm.distributed import RankLostError
    from kd_vlm.durable import storage_trouble
    from kd_vlm.lock import LockHeldError
    from kd_vlm.plan import StalledError
    from kd_vlm.shipping import UnreachableError
    from kd_vlm.signals import Stopped
    from kd_vlm.tracking import IntegrityError

    if isinstance(error, Stopped):
        return error.exit_code
    codes = (
        (LockHeldError, 7),
        (StorageError, 6),
        (IntegrityError, 5),
        (FloatingPointError, 4),
        ((UnreachableError, RankLostError, StalledError), REQUEUE),
        ((ValueError, FileNotFoundError), 2),
    )
    known = next((code for kind, code in codes if isinstance(error, kind)), None)
    return 6 if known in (None, 2, REQUEUE) and storage_trouble(error) else known


def message(error: Exception, code: int) -> str:
    """What is said of it."""
    from kd_vlm.checkpoint import StorageError
    from kd_vlm.durable import storage_trouble

    said = storage_trouble(error) if code == 6 and not isinstance(error, StorageError) else None
    return said or str(error)
