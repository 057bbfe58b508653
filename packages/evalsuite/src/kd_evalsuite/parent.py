"""How a command begins: it ends with the process that started it, and prints to any terminal.

This file is the same in every package; its source is contract/shared/parent.py.
"""

import ctypes
import io
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


def print_anywhere() -> None:
    """Print ? for a letter that a terminal's encoding lacks (locale C has no plus-minus), where Python would stop."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
