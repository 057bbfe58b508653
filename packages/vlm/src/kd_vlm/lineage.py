"""What a run is a function of, and whether an unfinished one may go on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from .durable import write_whole
from .reading import read_as

FILE = "inputs.json"


class Stored(TypedDict):
    """What `inputs.json` holds."""

    values: dict[str, Any]
    changes: list[dict[str, Any]]


@dataclass(frozen=True)
class Inputs:
    """All that the result depends on, by dotted name; `changes` are those that were made to it halfway."""

    values: Mapping[str, Any]
    changes: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def digest(self) -> str:
        """A sha256 of the values. Two runs of one digest and no changes end with the same weights."""
        return hashlib.sha256(json.dumps(dict(self.values), sort_keys=True).encode()).hexdigest()

    def differences(self, other: "Inputs") -> dict[str, tuple[Any, Any]]:
        """Each name whose value differs: (here, there)."""
        names = sorted(self.values.keys() | other.values.keys())
        pairs = {name: (self.values.get(name), other.values.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def go_on(work: Path, inputs: Inputs, *, step: int, fork: bool) -> tuple[Inputs, bool]:
    """The inputs of the run in `work`, which may have begun with others, and whether a new lineage begins here.

    Args:
        work: Folder of an unfinished run; may be empty.
        inputs: What the parameters say now.
        step: Steps that the run has done.
        fork: Go on under changed parameters.

    Raises:
        ValueError: If they are not what the run began with, and `fork` was not said.
    """
    file, forked = work / FILE, False
    if step and file.is_file():
        stored = read_as(Stored, file)
        begun = Inputs(stored["values"], tuple(stored["changes"]))
        changed = begun.differences(inputs)
        if changed and not fork:
            raise ValueError(_refusal(work, changed, step))
        halfway = {"step": step, "changed": {name: list(pair) for name, pair in changed.items()}}
        inputs = Inputs(inputs.values, (*begun.changes, halfway) if changed else begun.changes)
        forked = bool(changed)
    work.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"values": dict(inputs.values), "changes": list(inputs.changes)}, indent=1) + "\n"
    write_whole(file, content.encode())
    return inputs, forked


def _refusal(work: Path, changed: Mapping[str, tuple[Any, Any]], step: int) -> str:
    lines = "\n".join(f"  {name}: was {before!r}, is {now!r}" for name, (before, now) in changed.items())
    return (
        f"{work} holds a run of {step} steps with other parameters:\n{lines}\n"
        f"Put them back to go on; pass --fork to go on from step {step} under the new ones, as a run of its own; "
        "or remove that folder to begin anew."
    )
