"""The section `distill` of params.yaml."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from kd_distill.freeze import Tower
from kd_distill.params import Params
from kd_distill.task import TEACHER_TERMS, TERMS


class Data(Params):
    """Image-text pairs and how they are seen."""

    train: Path = Field(description="Folder of webdataset shards, img2dataset layout.")
    val: Path = Field(description="Held-out pairs.")
    views: int = Field(
        ge=1, description="Crops of each image; epoch e shows view e modulo views, a cache holds them all."
    )
    crop_area: float = Field(gt=0, le=1, description="Smallest share of the image that a crop covers.")
    caches: Path = Field(description="Folder of the teacher embedding caches.")


class Recipe(Params):
    """How one model is trained."""

    losses: dict[str, float] = Field(description="Weight of each loss term; a term that is absent is not computed.")
    fd_reduction: Literal["mean_nd", "mean_n"] = Field("mean_nd", description="See losses.feature_distillation.")
    icl_exp: bool = Field(True, description="Exponentiate ICL's scale; CLIP-KD does not.")
    batch_size: int = Field(gt=1)
    steps: int = Field(gt=0)
    warmup: int = Field(ge=0, description="Steps of linear warmup before the cosine.")
    lr: float = Field(gt=0, description="Peak learning rate.")
    weight_decay: float = Field(ge=0, description="On matrices; vectors and scalars have none.")
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = Field(1.0, gt=0, description="Largest norm of the gradient of student and heads together.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Of the towers; losses are always in fp32.")
    freeze: tuple[Tower, ...] = Field((), max_length=1, description="The tower that stays as it is, see freeze.py.")

    @model_validator(mode="after")
    def _terms_exist(self) -> Self:
        if unknown := set(self.losses) - set(TERMS):
            raise ValueError(f"losses: unknown {sorted(unknown)}; known: {', '.join(TERMS)}")
        if not self.losses:
            raise ValueError("losses: expected at least one term")
        return self


class Init(Params):
    """Where a student's weights come from, in place of its seed."""

    model: str = Field(description="Folder, reference file or models:/name, of the same architecture.")
    towers: tuple[Tower, ...] = Field(("image", "text"), min_length=1, description="What is taken from it.")


class Cell(Params):
    """One model to train: a teacher (no teacher of its own), or a student."""

    kind: Literal["teacher", "student"]
    id: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="Of a teacher: its id; of a student: its architecture's.")
    architecture: str = Field(description="A name that the package knows, or the path of an open_clip JSON.")
    recipe: str
    teacher: str | None = Field(None, description="Registered name of the teacher.")
    seed: int = Field(0, ge=0)
    init: Init | None = Field(None, description="Weights to start from; the rest is drawn from the seed.")

    @property
    def name(self) -> str:
        """The registered name (contract/README.md, "Names")."""
        seed = f"-s{self.seed}" if self.seed else ""
        if self.kind == "teacher":
            return f"teacher-{self.id}{seed}"
        return f"student-{self.id}--{(self.teacher or 'none').removeprefix('teacher-')}--{self.recipe}{seed}"


class DistillParams(Params):
    """Everything that kd-distill is told."""

    data: Data
    recipes: dict[str, Recipe]
    from_scratch: dict[str, Cell] = Field(description="Cells without a teacher: teachers, and baselines.")
    distilled: dict[str, Cell] = Field(description="Students of a teacher.")
    cached: list[str] = Field(description="The teachers of `distilled`, whose embeddings are cached.")

    @property
    def cells(self) -> dict[str, Cell]:
        """All cells, those without a teacher first."""
        return self.from_scratch | self.distilled

    @model_validator(mode="after")
    def _cells_fit(self) -> Self:
        for key, cell in self.cells.items():
            if key != cell.name:
                raise ValueError(f"{key}: this cell's registered name is {cell.name!r}; call it that")
            if cell.recipe not in self.recipes:
                raise ValueError(f"{key}.recipe: unknown {cell.recipe!r}; known: {', '.join(self.recipes)}")
            terms = sorted(self.recipes[cell.recipe].losses)
            if bool(TEACHER_TERMS & set(terms)) != (cell.teacher is not None):
                raise ValueError(
                    f"{key}: recipe {cell.recipe!r} has the losses {terms}, teacher is {cell.teacher!r}; "
                    "terms but 'task' need a teacher, and a teacher needs such a term"
                )
            if lost := set(self.recipes[cell.recipe].freeze) - set(cell.init.towers if cell.init else ()):
                raise ValueError(
                    f"{key}: recipe {cell.recipe!r} freezes {sorted(lost)}, which would stay as it was drawn "
                    "at random; give the cell an `init` that holds this tower, or do not freeze it"
                )
            if (key in self.distilled) != (cell.teacher is not None):
                raise ValueError(f"{key}: cells with a teacher stand in `distilled`, the others in `from_scratch`")
        if missing := {cell.teacher for cell in self.distilled.values()} - set(self.cached):
            raise ValueError(f"cached: {sorted(map(str, missing))} are teachers of `distilled` and missing here")
        return self
