"""What a run is a function of, and whether an unfinished one may go on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # pydantic asks for this one below Python 3.12

from kd_distill.durable import write_whole
from kd_distill.reading import read_as

# Parameters of a recipe that leave the result as it is; they may differ between a run and its continuation.
WITHOUT_EFFECT = frozenset(
    {"save_every_steps", "save_every_seconds", "keep", "log_every", "monitor_every", "export_epochs"}
)
LONGER = ("recipe.steps", "recipe.epochs")  # may grow
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


def inputs_of(**parts: Any) -> Inputs:
    """Inputs from nested mappings of JSON values, in dotted names."""
    return Inputs(json.loads(json.dumps(_flat("", parts))))


def _flat(prefix: str, node: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(f"{prefix}{key}.", value) if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def go_on(work: Path, inputs: Inputs, *, step: int, fork: bool) -> tuple[Inputs, bool]:
    """The inputs of the run in `work`, which may have begun with others, and whether a new lineage begins here.

    Args:
        work: Folder of an unfinished run; may be empty.
        inputs: What the parameters say now.
        step: Steps that the run has done.
        fork: Go on under changed parameters.

    Raises:
        ValueError: If they are not what the run began with, apart from a longer schedule, and `fork` was not said.
    """
    file = work / FILE
    forked = False
    if step and file.is_file():
        stored = read_as(Stored, file)
        begun = Inputs(stored["values"], tuple(stored["changes"]))
        changed = begun.differences(inputs)
        if changed and not (fork or all(_longer(name, *pair) for name, pair in changed.items())):
            raise ValueError(_refusal(work, changed, step))
        halfway = {"step": step, "changed": {name: list(pair) for name, pair in changed.items()}}
        inputs = Inputs(inputs.values, (*begun.changes, halfway) if changed else begun.changes)
        forked = bool(changed) and fork
    content = json.dumps({"values": dict(inputs.values), "changes": list(inputs.changes)}, indent=1) + "\n"
    write_whole(file, content.encode())
    return inputs, forked


def _longer(name: str, before: Any, now: Any) -> bool:
    return name in LONGER and before is not None and now is not None and now > before


def _refusal(work: Path, changed: Mapping[str, tuple[Any, Any]], step: int) -> str:
    lines = "\n".join(f"  {name}: was {before!r}, is {now!r}" for name, (before, now) in changed.items())
    return (
        f"{work} holds a run of {step} steps with other parameters:\n{lines}\n"
        f"Put them back to go on; pass --fork to go on from step {step} under the new ones, as a run of its own; "
        "or remove that folder to begin anew."
    )
