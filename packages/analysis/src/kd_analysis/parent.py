"""A process that is asked to stop when the process that started it dies, however that does.

This file is the same in every package; its source is contract/shared/parent.py.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Get SIGTERM when the parent dies. On Linux; elsewhere the lock of the output keeps a second writer out.

    A killed parent cannot end its children, and one that went on writing would meet the same command run again.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == 1 and b"dvc" not in Path("/proc/1/cmdline").read_bytes():  # it died before
        os.kill(os.getpid(), signal.SIGTERM)


def end_with_dvc() -> None:
    """As a stage of DVC, end with the `dvc` that runs it; elsewhere go on without the shell that started this."""
    if "DVC_STAGE" in os.environ:
        end_with_parent()
