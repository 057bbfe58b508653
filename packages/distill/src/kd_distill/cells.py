"""One model of a study: what it is, who teaches it, where it starts; its registered name."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kd_distill.freeze import Tower
from kd_distill.params import Params

Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class Init(Params):
    """Where a student's weights come from, in place of its seed."""

    model: str = Field(description="Folder, reference file or models:/name, of the same architecture.")
    towers: tuple[Tower, ...] = Field(("image", "text"), min_length=1, description="What is taken from it.")


class Cell(Params):
    """One model to train: a teacher (no teacher of its own), or a student."""

    kind: Literal["teacher", "student"]
    id: Id = Field(description="Of a teacher: its id; of a student: its architecture's.")
    architecture: str = Field(description="A name that the package knows, or the path of an open_clip JSON.")
    recipe: str
    teacher: str | tuple[str, ...] | None = Field(None, description="Registered name of the teacher, or of several.")
    seed: int = Field(0, ge=0)
    init: Init | None = Field(None, description="Weights to start from; the rest is drawn from the seed.")

    @property
    def teachers(self) -> tuple[str, ...]:
        """Registered names, in their order."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher or ()

    @property
    def taught_by(self) -> str:
        """Registered names of the teachers in one word, `none` without one."""
        return "+".join(self.teachers) or "none"

    @property
    def teacher_ids(self) -> str:
        """What the name says of the teachers."""
        return "+".join(name.removeprefix("teacher-") for name in self.teachers) or "none"

    @property
    def name(self) -> str:
        """The registered name (contract/README.md, "Names")."""
        seed = f"-s{self.seed}" if self.seed else ""
        if self.kind == "teacher":
            return f"teacher-{self.id}{seed}"
        return f"student-{self.id}--{self.teacher_ids}--{self.recipe}{seed}"

    @model_validator(mode="after")
    def _teachers_differ(self) -> Self:
        if self.teacher == () or len(set(self.teachers)) < len(self.teachers):
            raise ValueError(f"teacher: expected one or several different names, got {list(self.teachers)}")
        return self

    def name_at(self, epoch: int) -> str:
        """The registered name of the encoder as it is after an epoch."""
        return f"{self.name}-e{epoch}"
