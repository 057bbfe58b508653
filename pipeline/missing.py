"""What a run of stages could not make, and why: a file that reports read, so that a hole in a table has a reason."""

import json
from collections.abc import Sequence
from pathlib import Path

from contract.shared.durable import write_whole
from pipeline.order import Finished

SCHEMA = "kd-missing/1"
LINE = 300  # characters of a reason
NOISE = ("ERROR: failed to reproduce", "ERROR: failed to run")


def reason(log: Path) -> str:
    """The last thing that a failed stage said, before DVC said that it failed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()] if log.is_file() else []
    said = [line for line in lines if line and not line.startswith(NOISE)]
    return said[-1][:LINE] if said else "it said nothing"


def write(file: Path, ends: Sequence[Finished]) -> None:
    """The stages that failed or were held back; without any the file is removed."""
    lost = [end for end in ends if end.outcome in ("failed", "held")]
    if not lost:
        file.unlink(missing_ok=True)
        return
    rows = [{"stage": end.stage, "outcome": end.outcome, "why": end.why or reason(end.log)} for end in lost]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (json.dumps({"schema": SCHEMA, "missing": rows}, indent=1) + "\n").encode())
