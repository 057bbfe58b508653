"""The section `distill` of params.yaml."""

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from kd_distill.cells import Cell, Id
from kd_distill.formats import NETWORK, Network, Part, parts_of
from kd_distill.freeze import Tower
from kd_distill.layers import PatchLayer
from kd_distill.losses import PATCH_TERMS, TEACHER_TERMS, TERMS
from kd_distill.params import Params
from kd_distill.precision import Precision
from kd_distill.ramps import Ramp, Weight, weights_at
from kd_distill.recipes import recipe_named
from kd_distill.remote import Url

ENDLESS = 1 << 60  # steps


class Data(Params):
    """Image-text pairs and how they are seen."""

    train: Url | Path | list[Part] = Field(
        description="Folder or URL of webdataset shards, img2dataset layout; or a list of parts, which are mixed."
    )
    val: Url | Path | list[Part] = Field(description="Held-out pairs, in the same forms.")
    mixes: dict[Id, list[Part]] = Field({}, description="Other sets to train on, by the name of a recipe's `mix`.")
    classes: Path | None = Field(None, description="Held-out labelled images for zero-shot accuracy (monitor_every).")
    views: int = Field(
        ge=1, description="Crops of each image; epoch e shows view e modulo views, a cache holds them all."
    )
    crop_area: float = Field(gt=0, le=1, description="Smallest share of the image that a crop covers.")
    caches: Path = Field(description="Folder of the teacher embedding caches.")
    index: Path | None = Field(None, description="Folder of the indexes of the pairs; None: each beside its data.")
    network: Network = Field(NETWORK, description="How URLs are read.")
    teachers: Path | None = Field(None, description="Table of teachers beside the package's, see teachers.py.")
    bad_limit: float = Field(0.01, ge=0, lt=1, description="Largest share of the pairs that cannot be used.")
    pretokenise: bool = Field(True, description="Compute the token ids of all captions once, and keep them.")
    workers: int = Field(1, ge=1, description="Threads that read and decode.")
    timeout: float = Field(300.0, gt=0, allow_inf_nan=False, description="Seconds to wait for one batch.")

    @property
    def name(self) -> str:
        """What the training pairs are called in journals and tags."""
        return "+".join(part.name for part in parts_of(self.train))

    def of(self, mix: str | None) -> Self:
        """These, for training on `mixes[mix]` in the place of `train`; its caches stand in a folder of its name.

        Raises:
            ValueError: If there is no such mix.
        """
        if mix is None:
            return self
        if mix not in self.mixes:
            raise ValueError(f"data.mixes has no {mix!r}; known: {', '.join(self.mixes) or 'none'}.")
        return self.model_copy(update={"train": self.mixes[mix], "caches": self.caches / mix})

    @model_validator(mode="after")
    def _parts_exist(self) -> Self:
        if [] in (self.train, self.val, *self.mixes.values()):
            raise ValueError("train, val and mixes: expected a folder, or a list of at least one part")
        return self


class Active(Params):
    """Active selection of batches, see active.py."""

    keep: float = Field(gt=0, lt=1, description="Share of the pairs looked at that is trained on.")
    method: Literal["joint", "topk"] = "joint"
    chunks: int = Field(16, gt=0, description="Rounds in which `joint` chooses a batch.")
    groups: int = Field(
        1, gt=0, description="Parts of a batch that are chosen apart; the number of ranks must divide it."
    )


class Recipe(Params):
    """How one model is trained."""

    losses: dict[str, Weight] = Field(
        description="Weight of each loss term, a number or a ramp; one that is absent, or 0 for ever, is not computed. "
        "Or the name of a set in recipes.py, which sets its options too unless they are given here. `sound` by default."
    )
    losses_of_patches: dict[str, Weight] = Field({}, description="More of them where the teacher gives patch tokens.")
    fd_reduction: Literal["mean_nd", "mean_n"] = Field("mean_nd", description="See losses.feature_distillation.")
    mse_normalise: bool = Field(False, description="The term mse compares unit embeddings.")
    icl_exp: bool = Field(True, description="Exponentiate the scales of icl, cross_kd and afd.")
    mix: str | None = Field(None, description="The set of data.mixes that is trained on; None: data.train.")
    patch_layer: PatchLayer = Field("penultimate", description="Where patch tokens are read, see layers.py.")
    mask: float = Field(0.75, gt=0, lt=1, description="Share of the patches that mfd hides from the student.")
    teacher_scales: dict[str, float] = Field(
        {}, description="What a teacher's cosines are multiplied with, not its own."
    )
    loss_block: int | None = Field(256, gt=0, description="Rows of logits in memory at once; none for all.")
    tower_chunk: int | None = Field(None, gt=0, description="Pairs that the towers take at once; none for all.")
    batch_size: int = Field(gt=1, description="Pairs of a step, over all ranks together.")
    steps: int | None = Field(None, gt=0, description="Length of the run; or give epochs.")
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False, description="Length of the run; or give steps.")
    warmup: int = Field(ge=0, description="Steps of linear warmup before the cosine.")
    horizon: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Where the cosine would end, in the unit of the length; None: there.",
    )
    cooldown: int = Field(0, ge=0, description="Last steps, in which the rate falls linearly to zero.")
    lr: float = Field(gt=0, allow_inf_nan=False, description="Peak learning rate.")
    weight_decay: float = Field(ge=0, allow_inf_nan=False, description="On matrices; vectors and scalars have none.")
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(1e-6, gt=0, allow_inf_nan=False, description="AdamW's.")
    clip_norm: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Largest norm of the gradient of student and heads together."
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, which is then the model that is written.",
    )
    precision: Precision = Field("fp32", description="Of the towers; losses are always in fp32.")
    compile: bool = Field(False, description="torch.compile the towers.")
    freeze: tuple[Tower, ...] = Field((), max_length=1, description="The tower that stays as it is, see freeze.py.")
    channels_last: bool | None = Field(None, description="Memory layout of the image tower; None: where it is timm's.")

    # what follows does not change the result
    save_every_steps: int | None = Field(None, gt=0, description="Steps between checkpoints; None: by time alone.")
    save_every_seconds: float = Field(300.0, gt=0, allow_inf_nan=False, description="Seconds between checkpoints.")
    keep: int = Field(2, ge=1, description="Checkpoints that are kept.")
    log_every: int = Field(25, gt=0, description="Steps between two lines of the journal.")
    monitor_every: int | None = Field(None, gt=0, description="Steps between measurements of the student as it is.")
    export_epochs: tuple[int, ...] = Field((), description="Epochs after which the encoder is written as a model too.")

    def step_after(self, epochs: float, samples: int) -> int:
        """The step with which so many epochs of `samples` end; batches cross the border between epochs."""
        return math.ceil(epochs * samples / self.batch_size)

    def length(self, samples: int) -> tuple[int, int | None]:
        """(steps of the run, step where its cosine ends or None) where an epoch has `samples`."""
        if self.steps is not None:
            return self.steps, None if self.horizon is None else round(self.horizon)
        horizon = None if self.horizon is None else self.step_after(self.horizon, samples)
        return self.step_after(self.epochs or 0, samples), horizon

    @model_validator(mode="after")
    def _length_fits(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"expected either steps or epochs, got steps {self.steps}, epochs {self.epochs}")
        if self.horizon is not None and self.horizon < (self.steps or self.epochs or 0):
            raise ValueError(f"horizon: expected at least the length of the run, got {self.horizon:g}")
        if self.steps is not None and self.warmup + self.cooldown > self.steps:
            raise ValueError(f"warmup {self.warmup} and cooldown {self.cooldown} do not fit into {self.steps} steps")
        if any(e < 1 or (self.epochs is not None and e > self.epochs) for e in self.export_epochs):
            raise ValueError(f"export_epochs: expected epochs of the run, got {list(self.export_epochs)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {self.betas}")
        return self

    teacher_mode: Literal["cached", "online"] | dict[str, Literal["cached", "online"]] = Field(
        "cached",
        description="Whether teachers are read from their caches or run live; or which, by name (else cached).",
    )
    active: Active | None = Field(None, description="Train on the pairs that are worth most.")

    def mode_of(self, teacher: str) -> Literal["cached", "online"]:
        """Of one teacher."""
        return self.teacher_mode if isinstance(self.teacher_mode, str) else self.teacher_mode.get(teacher, "cached")

    def weights(self, *, patches: bool) -> dict[str, float | Ramp]:
        """Of the terms that are computed at some step, for teachers that give patch tokens or do not."""
        every = self.losses | (self.losses_of_patches if patches else {})
        return {name: w for name, w in every.items() if (w.start or w.end if isinstance(w, Ramp) else w)}

    @model_validator(mode="before")
    @classmethod
    def _named_losses(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(named := data.get("losses", "sound"), str):
            return data
        return recipe_named(named) | {key: value for key, value in data.items() if key != "losses"}

    @model_validator(mode="after")
    def _terms_exist(self) -> Self:
        if unknown := (set(self.losses) | set(self.losses_of_patches)) - set(TERMS):
            raise ValueError(f"losses: unknown {sorted(unknown)}; known: {', '.join(TERMS)}")
        if others := set(self.losses_of_patches) - PATCH_TERMS:
            raise ValueError(f"losses_of_patches: {sorted(others)} read no patches; those are {sorted(PATCH_TERMS)}")
        weights = self.weights(patches=False)
        # ramps go one way: where some weight is above 0 at both ends, it always is
        for step in (0, (self.steps or ENDLESS) - 1):
            if not any(weights_at(weights, step).values()):
                raise ValueError(f"losses: expected at least one term of a weight above 0 at step {step}")
        return self


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
            self.data.of(self.recipes[cell.recipe].mix)
            terms = sorted(self.recipes[cell.recipe].weights(patches=False))
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
            _refuse_unfit(key, cell, self.recipes[cell.recipe])
        modes = {(t, self.recipes[cell.recipe].mode_of(t)) for cell in self.distilled.values() for t in cell.teachers}
        if missing := {teacher for teacher, mode in modes if mode == "cached"} - set(self.cached):
            raise ValueError(f"cached: {sorted(missing)} are teachers of `distilled` and missing here")
        return self


def _refuse_unfit(key: str, cell: Cell, recipe: Recipe) -> None:
    """Raise ValueError where a recipe says of teachers what the cell does not have."""
    if isinstance(recipe.teacher_mode, dict) and (other := set(recipe.teacher_mode) - set(cell.teachers)):
        raise ValueError(
            f"{key}: recipe {cell.recipe!r} has a teacher_mode of {sorted(other)}, not teachers of this cell"
        )
    if recipe.active and not cell.teachers:
        raise ValueError(
            f"{key}: recipe {cell.recipe!r} selects pairs by a teacher's loss, and the cell has no teacher"
        )
