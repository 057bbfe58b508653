"""One writer for each output folder."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_UNDER_DVC = 30.0  # a stage whose dvc was killed has so long to save and end


class LockHeldError(RuntimeError):
    """Another process writes this output."""


@contextmanager
def sole_writer(output: Path) -> Iterator[None]:
    """Hold the lock of `output` while inside; the system frees it when the process dies, however it does.

    Raises:
        LockHeldError: If another process holds it; names that process. At once, but under DVC after half a minute:
            whoever holds it there lost its dvc and is ending, for DVC itself keeps living ones apart.
    """
    from filelock import FileLock, Timeout

    output.parent.mkdir(parents=True, exist_ok=True)
    held, holder = (output.with_name(f".{output.name}.{kind}.lock") for kind in ("run", "holder"))
    try:
        with FileLock(held, timeout=SECONDS_UNDER_DVC if "DVC_STAGE" in os.environ else 0):
            holder.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout:
        raise LockHeldError(
            f"{output} is being written by {_named(holder)}. Wait for it, stop it, or choose another --out."
        ) from None


def _named(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
