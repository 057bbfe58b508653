"""What a model is, read from its registered name (contract/README.md, "Names")."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NO_TEACHER = "none"
SEED, EPOCH = re.compile(r"-s(\d+)$"), re.compile(r"-e(\d+)$")


@dataclass(frozen=True)
class Name:
    """One registered name, taken apart.

    Attributes:
        full: The name as it was registered.
        kind: "teacher", "student", "vlm", or "other" for a name of none of these forms (a plain folder).
        arch: A student's architecture.
        teacher: A student's teacher id, `NO_TEACHER` without one; a teacher's own id. Holds the teacher's seed.
        encoder: A VLM's encoder as its name writes it, with `-` for `--`.
        lm: A VLM's language model.
        recipe: How it was trained, without the seed and the epoch.
        seed: From a suffix `-s<seed>` of the recipe (of a teacher's id); 0 without the suffix.
        epoch: From a last suffix `-e<epoch>` of a student taken before the end of its training; 0 at the end.
    """

    full: str
    kind: str
    arch: str = ""
    teacher: str = ""
    encoder: str = ""
    lm: str = ""
    recipe: str = ""
    seed: int = 0
    epoch: int = 0

    @property
    def alone(self) -> bool:
        return self.kind == "student" and self.teacher == NO_TEACHER

    @property
    def label(self) -> str:
        """Short, for tables and figures; tells neither recipe nor seed."""
        return self._label(self.arch)

    @property
    def recipe_label(self) -> str:
        """`label` with the recipe."""
        return self._label(f"{self.arch}, {self.recipe}")

    def _label(self, student: str) -> str:
        if self.kind == "teacher":
            return f"teacher {self.family}"
        if self.kind == "student":
            at = f", epoch {self.epoch}" if self.epoch else ""
            return f"{student}, {'no teacher' if self.alone else f'from {self.family}'}{at}"
        return self.full

    @property
    def family(self) -> str:
        """The teacher's id without its seed."""
        return SEED.sub("", self.teacher)


def parse(name: str) -> Name:
    """Take a registered name apart. A name of no known form becomes kind "other"; nothing is guessed from it."""
    kind, _, rest = name.partition("-")
    parts = rest.split("--")
    if kind == "teacher" and len(parts) == 1 and rest:
        return Name(name, kind, teacher=rest, seed=_suffix(SEED, rest))
    if kind in ("student", "vlm") and len(parts) == 3 and all(parts):
        whole = EPOCH.sub("", parts[2]) if kind == "student" else parts[2]
        seed, recipe = _suffix(SEED, whole), SEED.sub("", whole)
        if kind == "student":
            epoch = _suffix(EPOCH, parts[2])
            return Name(name, kind, arch=parts[0], teacher=parts[1], recipe=recipe, seed=seed, epoch=epoch)
        return Name(name, kind, encoder=parts[0], lm=parts[1], recipe=recipe, seed=seed)
    return Name(name, "other")


def labels(names: Iterable[Name]) -> dict[str, str]:
    """Registered name: its label, with the recipe where without it models of two recipes would look alike."""
    recipes: dict[str, set[str]] = {}
    for name in (all_ := list(names)):
        recipes.setdefault(name.label, set()).add(name.recipe)
    return {name.full: name.label if len(recipes[name.label]) == 1 else name.recipe_label for name in all_}


def _suffix(form: re.Pattern[str], text: str) -> int:
    found = form.search(text)
    return int(found.group(1)) if found else 0


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
