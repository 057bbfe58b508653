"""The section `analysis` of params.yaml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from kd_analysis import taps
from kd_analysis.params import Params
from kd_analysis.recipes import Recipe

Tap = Annotated[str, AfterValidator(taps.checked)]


class PairParams(Params):
    """A student and the teacher it is compared with: reference files, `models:/...` or plain folders."""

    student: str
    teacher: str


class RecipeParams(Params):
    """What the tables say of students of one recipe; what is left empty stays as the recipe's name and its run tell."""

    loss: str = Field("", description="Recipes that differ in their data or schedule alone share one.")
    dataset: str = Field("", description="What was trained on.")
    epochs: float = Field(0.0, ge=0, description="Length of the schedule.")
    encoder: str = Field("", description="They count as a pretrained encoder of this name, not as students.")


class AnalysisParams(Params):
    """What is measured and how sure the report is."""

    tap: Tap | tuple[Tap, ...] = Field("pooled", description="Where features are read, see taps.py; one or several.")
    estimators: tuple[Literal["debiased", "biased"], ...] = Field(("debiased", "biased"), min_length=1)
    measures: Literal["all"] | tuple[str, ...] = Field((), description="Similarities beside CKA, see measures.py.")
    tasks: Literal["all"] | tuple[str, ...] = Field("all", description="Benchmark folders to take images from.")
    benchmarks: Path = Field(Path("data/world/benchmarks"), description="One folder a task.")
    images: dict[str, Path] = Field(
        default_factory=dict, description="Pictures of tasks without such a folder: `zeroshot` is ImageNet in tables."
    )
    max_images: int | None = Field(None, ge=5, description="Images a task at most; null for all.")
    refs: Path = Field(Path("refs"), description="Where references of students and teachers are discovered.")
    pairs: Literal["discovered"] | tuple[PairParams, ...] = "discovered"
    store: Path = Field(Path("runs/features"), description="Features that were read before, for any pair and task.")
    feature_cache: Path | None = Field(
        None, description="Folder of visual tokens of VLMs that kd-vlm and kd-evalsuite keep, read and written."
    )
    feature_precision: taps.Precision = Field("fp32", description="Of the tokens in it; the recipe `fast` keeps bf16.")
    device: str = Field("cpu", description="Where encoders run, in torch's words.")
    level: float = Field(0.95, gt=0.5, lt=1, description="Coverage of every interval.")
    n_bootstrap: int = Field(2000, ge=200)
    seed: int = Field(0, ge=0, description="Of resampling and of the untrained students.")
    families: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Teachers of one family by its name, the smallest first; empty: all of them, the better last.",
    )
    names: dict[str, str] = Field(
        default_factory=dict, description="Ours: the paper's, where letters and digits alone do not match them."
    )
    epochs: float = Field(
        default=0.0, ge=0, description="Length of the students' schedule, for curves from folders; 0 if unknown."
    )
    recipes: dict[str, RecipeParams] = Field(
        default_factory=dict, description="Recipes whose names do not tell what the tables compare."
    )
    encoders: dict[str, str] = Field(
        default_factory=dict, description="VLM name: its encoder's name, where the VLM's name does not tell."
    )

    @property
    def told(self) -> dict[str, Recipe]:
        """What recipes say beside their names."""
        return {name: Recipe(**recipe.model_dump()) for name, recipe in self.recipes.items()}

    @property
    def taps(self) -> tuple[str, ...]:
        return (self.tap,) if isinstance(self.tap, str) else self.tap
