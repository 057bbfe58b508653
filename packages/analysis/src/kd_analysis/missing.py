"""What a run of the study could not make, and why, so that a hole in a table has a reason (see the contract)."""

import json
from dataclasses import dataclass
from pathlib import Path

from kd_analysis.scores import InputError

SCHEMA = "kd-missing/1"


@dataclass(frozen=True)
class Missing:
    """A stage that failed, or that could not run because another did.

    Attributes:
        stage: Its name, the cell behind an `@`.
        outcome: "failed" or "held".
        why: In words.
    """

    stage: str
    outcome: str
    why: str

    @property
    def cell(self) -> str:
        """The model that it was to make or to score; of a stage without cells its own name."""
        return self.stage.rpartition("@")[2].rpartition(":")[2]


def read_missing(file: Path | None) -> tuple[Missing, ...]:
    """What stands in the file, failures first; nothing where there is none.

    Raises:
        InputError: If it is not of the agreed form.
    """
    if file is None or not file.is_file():
        return ()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        rows = [Missing(row["stage"], row["outcome"], row["why"]) for row in content["missing"]]
        known = content["schema"] == SCHEMA
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: expected what is missing ({SCHEMA}), got {error!r}.") from None
    if not known:
        raise InputError(f"{file}: expected schema {SCHEMA}, got {content['schema']!r}.")
    return tuple(sorted(rows, key=lambda m: (m.outcome != "failed", m.stage)))
