"""What a model is, read from its registered name (contract/README.md, "Names")."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

NO_TEACHER = "none"
SEED = re.compile(r"-s(\d+)$")


@dataclass(frozen=True)
class Name:
    """One registered name, taken apart.

    Attributes:
        full: The name as it was registered.
        kind: "teacher", "student", "vlm", or "other" for a name of none of these forms (a plain folder).
        arch: A student's architecture.
        teacher: A student's teacher id, `NO_TEACHER` without one; a teacher's own id.
        encoder: A VLM's encoder as its name writes it, with `-` for `--`.
        lm: A VLM's language model.
        recipe: How it was trained, without the seed.
        seed: From a suffix `-s<seed>` of the recipe; None where the name tells none.
    """

    full: str
    kind: str
    arch: str = ""
    teacher: str = ""
    encoder: str = ""
    lm: str = ""
    recipe: str = ""
    seed: int | None = None

    @property
    def alone(self) -> bool:
        return self.kind == "student" and self.teacher == NO_TEACHER

    @property
    def label(self) -> str:
        """Short, for tables and figures."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        if self.kind == "teacher":
            return f"teacher {self.teacher}"
        if self.kind == "student":
            return f"{self.arch}, {'no teacher' if self.alone else f'from {self.teacher}'}{seed}"
        return self.full

    @property
    def without_seed(self) -> "Name":
        return replace(self, full=SEED.sub("", self.full), seed=None)


def parse(name: str) -> Name:
    """Take a registered name apart. A name of no known form becomes kind "other"; nothing is guessed from it."""
    kind, _, rest = name.partition("-")
    parts = rest.split("--")
    if kind == "teacher" and len(parts) == 1 and rest:
        return Name(name, kind, teacher=rest)
    if kind in ("student", "vlm") and len(parts) == 3 and all(parts):
        found = SEED.search(parts[2])
        seed = int(found.group(1)) if found else None
        recipe = SEED.sub("", parts[2])
        if kind == "student":
            return Name(name, kind, arch=parts[0], teacher=parts[1], recipe=recipe, seed=seed)
        return Name(name, kind, encoder=parts[0], lm=parts[1], recipe=recipe, seed=seed)
    return Name(name, "other")


def encoder_of(vlm: Name, encoders: Iterable[str], configured: Mapping[str, str]) -> str | None:
    """The registered name of a VLM's encoder: as configured, else the one known encoder that the VLM's name holds.

    Raises:
        ValueError: If several known encoders are written alike inside a VLM's name.
    """
    if vlm.full in configured:
        return configured[vlm.full]
    found = sorted({e for e in encoders if e.replace("--", "-") == vlm.encoder})
    if len(found) > 1:
        raise ValueError(f"{vlm.full}: {' and '.join(found)} both match; name one under analysis.encoders.")
    return found[0] if found else None
